"""Quantized checkpoints against what the libraries that define their forms make of them.

``make_checkpoints.py`` made them. Where a library computes in 16 bits, ours rounded once must be
the same bits; where it computes in float32, the same to two of its roundings.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from serving.checkpoint import find_checkpoint, read_config, read_headers
from serving.errors import SourceError
from serving.quantized_checkpoints import why_not_read
from serving.quantized_checkpoints.integer_weight import unpack_words
from serving.runtimes.torch.expanding import as_floats
from serving.runtimes.torch.pretrained import load_pretrained
from serving.seams import Checkpoint

CHECKPOINTS = sorted((Path(__file__).parent / "checkpoints").iterdir())
IDS = [folder.name for folder in CHECKPOINTS]
EXACT = torch.float16, torch.bfloat16

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    return found


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=IDS)
def test_every_weight_is_what_the_library_makes_of_it(folder: Path) -> None:
    expected = load_file(folder / "expected.safetensors")
    with as_floats(find_checkpoint("tiny", str(folder))) as checkpoint:
        model = load_pretrained(checkpoint, "AutoModelForCausalLM", torch.float32)
    weights = dict(model.named_parameters())
    assert len(expected) == 7
    for name, weight in expected.items():
        if weight.dtype in EXACT:
            assert torch.equal(weights[name].to(weight.dtype), weight), name
        else:
            torch.testing.assert_close(weights[name], weight, rtol=2**-22, atol=0)


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=IDS)
def test_answers_are_those_of_the_expanded_model(folder: Path) -> None:
    """transformers' own pass over the library's weights; float32 sums in another order."""
    said = config_of(folder)
    del said["quantization_config"]
    model = LlamaForCausalLM(LlamaConfig(**said)).eval()
    original = load_file(folder / WEIGHTS) | load_file(folder / "expected.safetensors")
    known = model.state_dict().keys()
    model.load_state_dict({name: t.float() for name, t in original.items() if name in known})
    with as_floats(find_checkpoint("tiny", str(folder))) as checkpoint:
        ours: Any = load_pretrained(checkpoint, "AutoModelForCausalLM", torch.float32)
    ids = torch.arange(20).unsqueeze(0)
    with torch.inference_mode():
        got, wanted = ours(ids).logits, model(ids).logits
    # The library's weights are rounded to 16 bits where it computes in them.
    distance = (got - wanted).norm() / wanted.norm()
    assert distance < 0.01


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=IDS)
def test_headers_tell_the_shapes_of_the_model(folder: Path) -> None:
    headers = read_headers(find_checkpoint("tiny", str(folder)))
    said = {shape.name: shape.shape for shape in headers.shapes}
    for name, weight in load_file(folder / "expected.safetensors").items():
        size = int(np.prod(said[name]))
        # Packed rows may have room in their last word; 3 bits of 64 and 128 numbers have none.
        assert size == weight.numel(), name
    assert not any("scale" in name or "absmax" in name for name in said)


@pytest.mark.parametrize("bits", range(1, 9))
def test_integers_are_unpacked_wherever_they_begin(bits: int) -> None:
    generator = np.random.default_rng(bits)
    numbers = generator.integers(0, 2**bits, (3, 41))
    words = np.zeros((3, -(-41 * bits // 32)), np.uint64)
    for row, column in np.ndindex(numbers.shape):
        for bit in range(bits):
            place = column * bits + bit
            value = np.uint64((numbers[row, column] >> bit) & 1)
            words[row, place // 32] |= value << np.uint64(place % 32)
    signed = torch.from_numpy(words.astype(np.uint32).view(np.int32))
    assert torch.equal(unpack_words(signed, bits, 41).long(), torch.from_numpy(numbers))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"quant_method": "aqlm"}, "quantized by 'aqlm', which is not read"),
        ({"quant_method": "quanto"}, "'quanto', which is not read; these are: gptq, awq,"),
        ({"quant_method": "torchao"}, "Name the checkpoint that it was made from"),
        ({}, "quantized by 'None', which is not read"),
        ({"quant_method": "gptq", "bits": 5}, "bits is 5"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "'marlin'"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "'gemv'"),
        ({"quant_method": "awq", "w_bit": 3}, "bits is 3"),
        (
            {"quant_method": "hqq", "quant_config": {"scale_quant_params": {"nbits": 8}}},
            "scales or zeros are quantized themselves",
        ),
        (
            {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}
            | {"config_groups": {"group_0": {}}},
            "format is nvfp4-pack-quantized",
        ),
        (
            {"quant_method": "compressed-tensors", "format": "pack-quantized"}
            | {"sparsity_config": {"format": "sparse-24-bitmask"}},
            "sparsity_config",
        ),
    ],
)
def test_what_is_not_read_is_named(said: dict[str, Any], reason: str) -> None:
    assert reason in str(why_not_read({"quantization_config": said}))


def test_quanto_s_own_files_are_named_though_they_say_nothing(tmp_path: Path) -> None:
    said = config_of(CHECKPOINTS[0])
    del said["quantization_config"]
    (tmp_path / CONFIG).write_text(json.dumps(said))
    layer = "model.layers.0.mlp.up_proj.weight"
    tensors = {f"{layer}._data": torch.zeros(4, 4, dtype=torch.int8)}
    save_file({**tensors, f"{layer}._scale": torch.ones(4, 1)}, tmp_path / WEIGHTS)
    with pytest.raises(SourceError, match="quantized by 'quanto', which is not read"):
        read_headers(Checkpoint(tmp_path))


def test_what_is_not_quantized_is_read_as_it_is(tmp_path: Path) -> None:
    assert why_not_read({"model_type": "llama"}) is None
    folder = CHECKPOINTS[0]
    said = config_of(folder)
    del said["quantization_config"]
    (tmp_path / CONFIG).write_text(json.dumps(said))
    checkpoint = Checkpoint(tmp_path)
    with as_floats(checkpoint) as same:
        assert same is checkpoint


def test_a_form_that_is_not_read_is_refused_with_the_headers(tmp_path: Path) -> None:
    shutil.copytree(CHECKPOINTS[0], tmp_path, dirs_exist_ok=True)
    said = config_of(tmp_path)
    said["quantization_config"]["quant_method"] = "vptq"
    (tmp_path / CONFIG).write_text(json.dumps(said))
    with pytest.raises(SourceError, match="quantized by 'vptq', which is not read"):
        read_headers(Checkpoint(tmp_path))


def test_a_layer_that_lacks_a_part_is_named(tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parent / "checkpoints" / "gptq-4bit", tmp_path / "cut")
    tensors = load_file(tmp_path / "cut" / WEIGHTS)
    del tensors["model.layers.0.mlp.up_proj.scales"]
    save_file(tensors, tmp_path / "cut" / WEIGHTS)
    with (
        pytest.raises(SourceError, match=r"layers\.0\.mlp\.up_proj: .*cannot be read from"),
        as_floats(Checkpoint(tmp_path / "cut")),
    ):
        pass


def test_an_expanded_copy_is_a_checkpoint_as_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """In files that every converter looks at, no larger than a shard and one tensor more."""
    monkeypatch.setattr("serving.runtimes.torch.expanding.SHARD_BYTES", 20_000)
    folder = Path(__file__).parent / "checkpoints" / "w8a8"
    with as_floats(Checkpoint(folder)) as checkpoint:
        files = sorted(checkpoint.folder.glob("*.safetensors"))
        assert len(files) > 2
        assert all(file.name.startswith("model-") for file in files)
        assert max(file.stat().st_size for file in files) < 20_000 + 4 * 64 * 128 + 2_000
        assert "quantization_config" not in read_config(checkpoint)
    assert not checkpoint.folder.exists()
