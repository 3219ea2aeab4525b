"""Shapes of the model that a quantized checkpoint was made from, where its header only counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from serving.checkpoint import read_headers
from serving.quantized_checkpoints import shapes_of_model
from serving.quantized_checkpoints.bitsandbytes import STATES
from serving.seams import Checkpoint, WeightShape

CHECKPOINTS = Path(__file__).parent / "checkpoints"
FLAT = ("bitsandbytes-nf4", "bitsandbytes-fp4", "hqq-2bit", "hqq-3bit-columns", "quanto-int4")


def flat(layer: str, numbers: int) -> list[WeightShape]:
    """A layer as the header of a 4-bit file of bitsandbytes tells it."""
    names = {f"{layer}.weight": (numbers // 2, 1), f"{layer}.{STATES[0]}": (90,)}
    return [WeightShape(name, shape, False, "U8") for name, shape in names.items()]


@pytest.mark.parametrize(
    ("layer", "bias", "config", "shape"),
    [
        ("mlp.up_proj", None, {"hidden_size": 2048}, (8192, 2048)),
        ("mlp.down_proj", None, {"hidden_size": 2048}, (2048, 8192)),
        ("mlp.up_proj", None, {"text_config": {"hidden_size": 2048}}, (8192, 2048)),
        ("ffn.lin1", None, {"dim": 2048}, (8192, 2048)),
        ("output.dense", 2048, {"hidden_size": 2048}, (2048, 8192)),
        ("visual.fc1", 4096, {"hidden_size": 2047}, (4096, 4096)),
        ("visual.fc1", None, {"hidden_size": 2047}, (1, 2**24)),
        ("visual.fc1", None, {"hidden_size": -1}, (1, 2**24)),
        ("visual.fc1", 0, {"hidden_size": 2048}, (1, 2**24)),
    ],
)
def test_how_numbers_lie_is_guessed(
    layer: str, bias: int | None, config: dict[str, Any], shape: tuple[int, int]
) -> None:
    stored = flat(layer, 2**24)
    if bias is not None:
        stored.append(WeightShape(f"{layer}.bias", (bias,), False))
    said = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    found = shapes_of_model(stored, {**config, "quantization_config": said})[-1]
    assert (found.name, found.shape, found.is_flat) == (f"{layer}.weight", shape, True)


@pytest.mark.parametrize("name", FLAT)
def test_of_a_llama_the_guess_is_right(name: str) -> None:
    found = {shape.name: shape for shape in read_headers(Checkpoint(CHECKPOINTS / name)).shapes}
    with safe_open(CHECKPOINTS / name / "expected.safetensors", framework="np") as expected:
        for weight in expected.keys():  # noqa: SIM118 (safe_open is no mapping)
            assert found[weight].is_flat
            assert list(found[weight].shape) == expected.get_slice(weight).get_shape(), weight


def test_a_header_that_tells_a_shape_is_not_doubted() -> None:
    headers = read_headers(Checkpoint(CHECKPOINTS / "bitsandbytes-int8"))
    assert not any(shape.is_flat for shape in headers.shapes)
