"""Quantized checkpoints against what the libraries that define their forms make of them.

``make_checkpoints.py``, ``make_whole_checkpoints.py``, ``make_aqlm.py`` and ``make_quip.py`` made
them. Where a library computes in 16 bits, ours rounded once must be the same bits; where it
computes in float32, the same to two of its roundings. A weight of QuIP# is a sum of as many numbers
as the layer is high and wide; see ``SUMMED``.
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
from serving.quantized_checkpoints import torchao, why_not_read
from serving.quantized_checkpoints.integer_weight import IntegerWeight, unpack_words
from serving.quantized_checkpoints.quanto import FORM as QUANTO
from serving.quantized_checkpoints.scale_blocks import spread
from serving.runtimes.torch.expanding import as_floats
from serving.runtimes.torch.pretrained import load_pretrained
from serving.seams import Checkpoint

CHECKPOINTS = sorted((Path(__file__).parent / "checkpoints").iterdir())
IDS = [folder.name for folder in CHECKPOINTS]
EXACT = torch.float16, torch.bfloat16
SUMMED = 2**-18
"""Of a layer's root mean square, what a weight of QuIP# may be off: 64 roundings of float32.

At most 384 numbers of about this size are added here; the root of their number is what rounding
them adds up to, 20, and some weights have more. The most that was seen is 33.
"""

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
    # Of one checkpoint the table of embeddings is quantized, too.
    assert len(expected) == 7 + (folder.name == "torchao-by-name")
    for name, weight in expected.items():
        if weight.dtype in EXACT:
            assert torch.equal(weights[name].to(weight.dtype), weight), name
        else:
            is_summed = folder.name.startswith("quip")
            off = SUMMED * weight.square().mean().sqrt().item() if is_summed else 0
            torch.testing.assert_close(weights[name], weight, rtol=2**-22, atol=off)


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=IDS)
def test_answers_are_those_of_the_expanded_model(folder: Path) -> None:
    """transformers' own pass over the library's weights; float32 sums in another order."""
    said = config_of(folder)
    said.pop("quantization_config", None)  # quanto's own map lies beside it
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


def torchao_of(name: str, **data: Any) -> dict[str, Any]:
    """What transformers says of a checkpoint of one of torchao's configurations."""
    return {"quant_method": "torchao", "quant_type": {"default": {"_type": name, "_data": data}}}


def quip_of(**change: Any) -> dict[str, Any]:
    """What QuIP# says of its checkpoints of 2 bits, with something else in it."""
    said = {"codebook": "E8P12", "codebook_version": 1, "model_version": 1, "lora_rank": 0}
    return {"quant_method": "quip-sharp", **said, **change}


TILED = {"_type": "Int4PackingFormat", "_data": "TILE_PACKED_TO_4D"}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"quant_method": "aqlm"}, "in_group_size is None; 1 to 1024 are read"),
        ({"quant_method": "vptq"}, "'vptq', which is not read; these are: gptq, awq,"),
        ({"quant_method": "quip"}, "Name the checkpoint that it was made from"),
        (quip_of(codebook="D4"), "codebook is 'D4'; E8P12, E8P12RVQ3B, E8P12RVQ4B are read"),
        (quip_of(codebook=["E8P12"]), "codebook is ['E8P12']"),
        (quip_of(codebook_version=0), "codebook_version is 0; 1 is read"),
        (quip_of(model_version=None), "model_version is None; 1 is read"),
        (quip_of(lora_rank=64), "lora_rank is 64; 0 is read"),
        (quip_of(outlier_channel_split=True), "outlier_channel_split is set"),
        (quip_of(resid_scale_override="1"), "resid_scale_override is '1'; a number is read"),
        ({"quant_method": "quanto", "weights": "int3"}, "weights are int3; int8, qint8, int4,"),
        (
            {"quant_method": "quanto", "layers": {"a": {"weights": "qfloat8_e4m3fnuz"}}},
            "weights are qfloat8_e4m3fnuz",
        ),
        (torchao_of("AWQConfig"), "quant_type is AWQConfig; Int8WeightOnlyConfig, "),
        (
            torchao_of("Int4WeightOnlyConfig", int4_packing_format=TILED),
            "int4_packing_format of Int4WeightOnlyConfig is TILE_PACKED_TO_4D; PLAIN is read",
        ),
        (
            torchao_of("FqnToConfig", fqn_to_config={"a": None, "b": {"_type": "MXConfig"}}),
            "quant_type is MXConfig",
        ),
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
    with pytest.raises(SourceError, match=r"by 'quanto', whose quanto_qmap\.json is missing"):
        read_headers(Checkpoint(tmp_path))
    (tmp_path / "quanto_qmap.json").write_text('["qint8"]')
    with pytest.raises(SourceError, match=r"quanto_qmap\.json: expected an object with one for"):
        read_headers(Checkpoint(tmp_path))


def test_packed_rows_of_no_known_width_are_refused() -> None:
    parts = {
        "weight._data._data": torch.zeros(3, 8, dtype=torch.uint8),
        "weight._scale": torch.ones(8, 1),
        "weight._shift": torch.ones(8, 1),
    }
    with pytest.raises(ValueError, match="3 packed rows of 8 have no width"):
        QUANTO.read(parts, {})


def test_whole_offsets_of_quanto_are_taken_off_before_the_scale() -> None:
    """Its ``zeropoint`` has them so; floating ones are taken off after it."""
    packed = torch.tensor([[0x21], [0x43]], dtype=torch.uint8)
    scales = torch.tensor([[1.0], [10.0], [100.0], [1000.0]])
    parts = {"weight._data._data": packed, "weight._scale": scales}
    whole: Any = QUANTO.read({**parts, "weight._shift": torch.ones(4, 1, dtype=torch.int8)}, {})
    assert torch.equal(whole, torch.tensor([[0.0], [20.0], [100.0], [3000.0]]))
    after: Any = QUANTO.read({**parts, "weight._shift": torch.ones(4, 1)}, {})
    assert torch.equal(after, torch.tensor([[0.0], [29.0], [199.0], [3999.0]]))


def test_layers_of_several_configurations_of_torchao_are_told_apart() -> None:
    """Of the integers of all of them, each layer takes the least bits that hold its codes."""
    by_name = {
        "_default": {"_type": "IntxWeightOnlyConfig", "_data": {"weight_dtype": "int4"}},
        "lm_head": {"_type": "IntxWeightOnlyConfig", "_data": {"weight_dtype": "int8"}},
        "model.embed_tokens": {"_type": "Float8WeightOnlyConfig"},
    }
    said = torchao_of("FqnToConfig", fqn_to_config=by_name)
    found = torchao.FORM.integers(said)
    assert found is not None
    assert found.bits == {4, 8}
    for codes, bits in (([-8, 7], 4), ([-8, 8], 8)):
        parts = {
            "_weight_qdata": torch.tensor([codes], dtype=torch.int8),
            "_weight_scale": torch.ones(1, 1),
            "_weight_zero_point": torch.zeros(1, 1, dtype=torch.int8),
        }
        weight = torchao.FORM.read(parts, said)
        assert isinstance(weight, IntegerWeight)
        assert weight.bits == bits
        assert weight.expanded().tolist() == [codes]


def test_widths_that_are_none_are_refused_with_the_headers(tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parent / "checkpoints" / "torchao-8da4w", tmp_path / "wrong")
    said = config_of(tmp_path / "wrong")
    data = said["quantization_config"]["quant_type"]["default"]["_data"]
    data["weight_dtype"]["_data"] = "many"
    (tmp_path / "wrong" / CONFIG).write_text(json.dumps(said))
    with pytest.raises(SourceError, match="its quantization_config cannot be read: ValueError"):
        read_headers(Checkpoint(tmp_path / "wrong"))


def test_inputs_that_torchao_scales_first_are_refused() -> None:
    parts = {
        "_weight_qdata": torch.zeros(4, 4, dtype=torch.int8),
        "_weight_scale": torch.ones(4, 1),
        "_weight_act_pre_scale": torch.ones(4),
    }
    with pytest.raises(ValueError, match="multiplied by _weight_act_pre_scale"):
        torchao.FORM.read(parts, torchao_of("Int8WeightOnlyConfig"))


def test_as_many_blocks_as_outputs_are_still_blocks() -> None:
    """DeepSeek-V3's output projections are such: 56 × 128 blocks of 7,168 outputs."""
    scales = torch.arange(1.0, 9).view(2, 4)
    spread_out = spread(scales, (8, 16), (4, 4))
    assert spread_out.shape == (8, 16)
    assert spread_out[0, ::4].tolist() == [1, 2, 3, 4]
    assert spread_out[4, ::4].tolist() == [5, 6, 7, 8]
    by_output = torch.arange(8.0)
    for one in (by_output, by_output.unsqueeze(1)):
        assert torch.equal(spread(one, (8, 16)), by_output.unsqueeze(1))


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
