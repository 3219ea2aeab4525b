"""Layouts of fp8, bitsandbytes and HQQ that the checkpoints of this folder do not have."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from serving.quantized_checkpoints.bitsandbytes import FORM as BITSANDBYTES
from serving.quantized_checkpoints.bitsandbytes import STATES
from serving.quantized_checkpoints.fp8 import FORM as FP8
from serving.quantized_checkpoints.hqq import FORM as HQQ


def test_scales_of_autofp8_are_multiplied_with() -> None:
    numbers = torch.tensor([[1.0, -2.0], [0.5, 448.0]])
    parts = {
        "weight": numbers.to(torch.float8_e4m3fn),
        "weight_scale": torch.tensor(0.25),
        "input_scale": torch.tensor(3.0),
        "output_scale": torch.tensor(5.0),
    }
    assert {*parts} <= {*FP8.parts}
    said = {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}
    found: Any = FP8.read(parts, said)
    assert torch.equal(found, numbers * 0.25)


@pytest.mark.parametrize("layout", [0, 1, 2, 3])
def test_tiles_of_int8_are_refused(layout: int) -> None:
    parts = {
        "weight": torch.ones(2, 4, dtype=torch.int8),
        "SCB": torch.tensor([127.0, 254.0]),
        "weight_format": torch.tensor(layout, dtype=torch.uint8),
    }
    if layout:
        with pytest.raises(ValueError, match=f"weight_format is {layout}"):
            BITSANDBYTES.read(parts, {})
    else:
        found: Any = BITSANDBYTES.read(parts, {})
        assert found.expanded().tolist() == [[1.0] * 4, [2.0] * 4]


def four_bits(storage: torch.dtype) -> tuple[dict[str, Tensor], Tensor]:
    """Two blocks of NF4 whose bytes are stored as another type, and what they stand for."""
    codes = torch.arange(128) % 16
    packed = (codes[::2] << 4 | codes[1::2]).to(torch.uint8)
    table, largest = torch.linspace(-1, 1, 16), torch.tensor([2.0, 4.0])
    state = json.dumps({"shape": [2, 64], "blocksize": 64}).encode()
    parts = {
        "weight": packed.view(storage).unsqueeze(1),
        "weight.absmax": largest,
        "weight.quant_map": table,
        STATES[0]: torch.tensor(list(state), dtype=torch.uint8),
    }
    return parts, (table[codes] * largest.repeat_interleave(64)).view(2, 64)


@pytest.mark.parametrize("storage", ["uint8", "bfloat16", "float32"])
def test_bytes_of_four_bits_may_be_stored_as_another_type(storage: str) -> None:
    parts, expected = four_bits(getattr(torch, storage))
    said = {"load_in_4bit": True, "bnb_4bit_quant_storage": storage}
    found: Any = BITSANDBYTES.read(parts, said)
    assert torch.equal(found, expected)
    shapes = {name: tuple(part.shape) for name, part in parts.items()}
    outputs, inputs = BITSANDBYTES.shape(shapes, said)
    assert outputs * inputs == 128


def hqq_layer(axis: int, group: int, viewed: torch.dtype | None) -> tuple[dict[str, Any], Tensor]:
    """A layer (4, 64) of 4 bits, codes from 0 to 15, scales 2 and zeros 3; and its weight."""
    codes = torch.arange(256) * 5 % 16
    rows = codes.view(-1, group) if axis else codes.view(group, -1)
    half = len(rows) // 2
    packed = (rows[:half] << 4 | rows[half:]).to(torch.uint8)
    size = (256 // group, 1) if axis else (1, 256 // group)
    parts = {
        "W_q": packed if viewed is None else packed.view(viewed),
        "scale": torch.full(size, 2.0),
        "zero": torch.full(size, 3.0),
        "shape": torch.tensor([4, 64]),
        "nbits": torch.tensor(4),
        "group_size": torch.tensor(group),
        "axis": torch.tensor(axis),
    }
    return parts, ((codes - 3.0) * 2).view(4, 64)


@pytest.mark.parametrize("viewed", [None, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("axis", [0, 1])
def test_hqq_s_bytes_may_be_viewed_as_floats(axis: int, viewed: torch.dtype | None) -> None:
    parts, expected = hqq_layer(axis, 16, viewed)
    found: Any = HQQ.read(parts, {})
    assert torch.equal(found, expected)
    weights = {"nbits": 4, "group_size": 16, "axis": axis, "view_as_float": viewed is not None}
    all_layers = {"weight_quant_params": weights, "scale_quant_params": None}
    by_kind = {"self_attn.q_proj": all_layers, "mlp.up_proj": all_layers}
    shapes = {name: tuple(part.shape) for name, part in parts.items()}
    for said in (all_layers, by_kind):
        outputs, inputs = HQQ.shape(shapes, {"quant_method": "hqq", "quant_config": said})
        assert outputs * inputs == 256


@pytest.mark.parametrize("is_by_kind", [False, True])
def test_hqq_s_scales_that_are_quantized_are_refused(is_by_kind: bool) -> None:
    one = {"weight_quant_params": {"nbits": 4}, "scale_quant_params": {"nbits": 8}}
    said = {"quant_config": {"mlp.up_proj": one} if is_by_kind else one}
    assert "its scales or zeros are quantized" in str(HQQ.why_not(said))
