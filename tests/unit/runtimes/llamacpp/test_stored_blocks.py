"""``stored`` on llama.cpp: integers of others' checkpoints, in blocks that hold them exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, dequantize

from serving.checkpoint import read_config, read_headers
from serving.errors import ConfigError
from serving.quantized_checkpoints.integer_weight import IntegerWeight, even_groups
from serving.recipes import RECIPES
from serving.runtimes.llamacpp.artifact_files import MODEL
from serving.runtimes.llamacpp.opening import open_decoder
from serving.runtimes.llamacpp.preparing import prepare_generator
from serving.runtimes.llamacpp.runtime import RUNTIME
from serving.runtimes.llamacpp.stored_blocks import blocks_of, write_blocks
from serving.runtimes.matrix import why_not
from serving.runtimes.torch.expanding import read_integers
from serving.seams import Checkpoint, Combination, Segment, SizeRequest
from tests.unit.runtimes.stored_checkpoints import CHECKPOINTS, Made, make
from tests.unit.runtimes.tiny_generators import open_request, save_gguf

KEPT = {"w4a16": "Q4_0", "w8a8": "Q8_0", "quanto-int8": "Q8_0", "torchao-8da4w": "Q4_0"}
"""Symmetric, with short scales, and groups of 32 or whole rows."""

each_kept = pytest.mark.parametrize("name", KEPT)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """In ``stored`` and in ``f16`` of the same numbers."""
    return make(prepare_generator, KEPT, ("stored", "f16"), tmp_path_factory.mktemp)


@each_kept
def test_rows_are_the_expanded_ones_to_the_last_bit(made: Made, name: str) -> None:
    tensors = GGUFReader(made[name, "stored"][0] / MODEL).tensors
    packed = [tensor for tensor in tensors if tensor.tensor_type.name == KEPT[name]]
    assert len(packed) == 7
    found = np.sort(np.concatenate([dequantize(t.data, t.tensor_type).ravel() for t in packed]))
    layers = dict(read_integers(Checkpoint(CHECKPOINTS / name)))
    expanded = {layer: weight.expanded().numpy() for layer, weight in layers.items()}
    assert np.array_equal(found, np.sort(np.concatenate([w.ravel() for w in expanded.values()])))
    # Queries and keys are the only ones whose rows llama.cpp has in another order.
    up = next(t for t in packed if "ffn_up" in t.name)
    assert np.array_equal(
        dequantize(up.data, up.tensor_type), expanded["model.layers.0.mlp.up_proj"]
    )
    assert {t.tensor_type.name for t in tensors} == {KEPT[name], "F32"}


@each_kept
def test_answers_are_near_those_of_the_same_numbers_in_floats(made: Made, name: str) -> None:
    tokens = np.random.default_rng(0).integers(64, size=50).tolist()
    found, expected = (
        open_decoder(open_request(recipe, made[name, recipe][0], slot_tokens=64)).step(
            [Segment(0, 0, tokens, len(tokens))]
        )
        for recipe in ("stored", "f16")
    )
    change = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    # llama.cpp rounds activations to 8 bits in groups of 32 before it multiplies with blocks.
    assert 0 < change.mean() < 0.02


@each_kept
def test_the_estimate_is_what_the_file_holds(made: Made, name: str) -> None:
    shapes = read_headers(Checkpoint(CHECKPOINTS / name)).shapes
    options = RECIPES["stored"].options()
    estimate = RUNTIME.estimate(SizeRequest("stored", options, "generator", "cpu", shapes))
    decoder = open_decoder(open_request("stored", made[name, "stored"][0], slot_tokens=64))
    assert decoder.footprint().weights_bytes == pytest.approx(estimate.weights_bytes, rel=0.02)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *((name, None) for name in KEPT),
        ("w4a16-asymmetric", "its groups have zeros of their own"),
        ("w8a8-asymmetric", "its groups have zeros of their own"),
        ("awq", "its groups have zeros of their own"),
        ("gptq-4bit", "its groups have zeros of their own"),
        ("bitsandbytes-int8", "its scales are float32"),
        ("w3a16", "integers of 3 bits; 4 and 8 are kept"),
        ("hqq-4bit", "are no integers with scales"),
        ("w8a8-fp8", "are no integers with scales"),
    ],
)
def test_what_blocks_do_not_hold_is_refused_by_name(name: str, reason: str | None) -> None:
    config = read_config(Checkpoint(CHECKPOINTS / name))
    said = why_not(Combination("stored", "generator", "cpu", "safetensors", config), "llama.cpp")
    assert said is None if reason is None else said is not None and reason in said


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"group_size": 64}, None),
        ({"group_size": -1}, None),
        ({"group_size": 16}, "its groups are no multiples of 32"),
        ({"desc_act": True}, "in the order of activation"),
        ({"bits": 8}, None),
    ],
)
def test_what_gptq_says_of_its_groups_decides(change: dict[str, Any], reason: str | None) -> None:
    said = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}
    config = {"model_type": "llama", "quantization_config": said | change}
    found = why_not(Combination("stored", "generator", "cpu", "safetensors", config), "llama.cpp")
    assert found is None if reason is None else found is not None and reason in found


def weight_of(bits: int, groups: int, **changes: Any) -> IntegerWeight:
    """Codes from 0, the middle of which means 0."""
    torch.manual_seed(0)
    half = 1 << (bits - 1)
    said = {
        "codes": torch.randint(2 * half, (5, 128)).to(torch.int16),
        "scales": torch.rand(5, groups).half().float(),
        "zeros": torch.full((5, groups), float(half)),
        "group_of": even_groups(128, groups),
        "bits": bits,
    }
    return IntegerWeight(**{**said, **changes})


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_hold_the_same_numbers(bits: int, groups: int) -> None:
    weight = weight_of(bits, groups)
    blocks = blocks_of(weight)
    found = dequantize(blocks.rows, GGMLQuantizationType(blocks.kind))
    assert np.array_equal(found, weight.expanded().numpy())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"zeros": torch.full((5, 4), 7.0)}, "zeros that are not in the middle"),
        ({"scales": torch.full((5, 4), 0.1)}, "scales that float16 does not hold"),
        ({"scales": torch.full((5, 4), 1e6)}, "scales that float16 does not hold"),
        ({"group_of": torch.arange(128) % 4}, "no groups of whole blocks of 32 neighbours"),
    ],
)
def test_numbers_that_blocks_do_not_hold_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        blocks_of(weight_of(4, 4, **changes))


def test_numbers_that_conversion_changed_are_refused(tmp_path: Path) -> None:
    checkpoint = save_gguf(tmp_path)
    whole = tmp_path / str(checkpoint.gguf_file)
    with pytest.raises(ConfigError, match=r"up_proj: converted for llama.cpp it has other numbers"):
        write_blocks(whole, tmp_path / "out.gguf", [("up_proj", weight_of(4, 4))])
    broken = weight_of(4, 4, zeros=torch.full((5, 4), 7.0))
    with pytest.raises(ConfigError, match=r"up_proj has zeros .* or the runtime openvino"):
        write_blocks(whole, tmp_path / "out.gguf", [("up_proj", broken)])
