"""Layouts that older versions of compressed-tensors wrote, and what is not undone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from serving.quantized_checkpoints import why_not_read
from serving.quantized_checkpoints.compressed_tensors import FORM, Packing
from serving.quantized_checkpoints.integer_weight import IntegerWeight
from tests.unit.quantized_checkpoints.layer_tensors import packed_rows

OUTPUTS, INPUTS, GROUP = 8, 64, 32
PACKED = {"quant_method": "compressed-tensors", "format": "pack-quantized"}


def said_of(*weights: dict[str, Any], **others: Any) -> dict[str, Any]:
    groups = {f"group_{n}": {"weights": one} for n, one in enumerate(weights)}
    return {**PACKED, "config_groups": groups, **others}


def packed_layer(bits: int, has_gaps: bool, zeros: Tensor | None) -> tuple[dict[str, Any], Tensor]:
    """A layer, and the weight that its codes stand for."""
    generator = torch.Generator().manual_seed(bits)
    codes = torch.randint(0, 2**bits, (OUTPUTS, INPUTS), generator=generator)
    scales = torch.randint(1, 9, (OUTPUTS, INPUTS // GROUP), generator=generator) / 8
    per_word = 32 // bits if has_gaps else None
    parts = {
        "weight_packed": packed_rows(codes, bits, per_word),
        "weight_scale": scales.half(),
        "weight_shape": torch.tensor([OUTPUTS, INPUTS]),
    }
    signed = codes - (1 << bits - 1)
    if zeros is not None:
        signed = signed - zeros.repeat_interleave(GROUP, 1)
        moved_up = (zeros + (1 << bits - 1)).T
        parts["weight_zero_point"] = packed_rows(moved_up, bits, per_word).T.contiguous()
    return parts, signed * scales.repeat_interleave(GROUP, 1)


def read(parts: dict[str, Any], said: dict[str, Any]) -> Tensor:
    weight = FORM.read(parts, said)
    assert isinstance(weight, IntegerWeight)
    return weight.expanded()


@pytest.mark.parametrize("has_gaps", [False, True])
@pytest.mark.parametrize("bits", [3, 4, 5, 6, 7])
def test_words_are_read_with_gaps_and_without(bits: int, has_gaps: bool) -> None:
    zeros = torch.arange(OUTPUTS * 2).view(OUTPUTS, 2) % 4 - 2
    parts, expected = packed_layer(bits, has_gaps, zeros)
    said = said_of({"num_bits": bits, "group_size": GROUP, "symmetric": False})
    assert torch.equal(read(parts, said), expected)
    shapes = {name: tuple(part.shape) for name, part in parts.items()}
    assert FORM.shape(shapes, said) == (OUTPUTS, INPUTS)
    by_output = said_of({"num_bits": bits, "strategy": "channel"})
    shapes["weight_scale"] = (OUTPUTS, 1)
    room = FORM.shape(shapes, by_output)[1]
    assert INPUTS <= room < INPUTS + 32 // bits


def test_zeros_of_a_byte_each_are_not_moved_up() -> None:
    """As the library wrote them before it packed them."""
    zeros = torch.arange(OUTPUTS * 2).view(OUTPUTS, 2) % 16 - 8
    parts, expected = packed_layer(4, False, zeros)
    parts["weight_zero_point"] = zeros.to(torch.int8)
    said = said_of({"num_bits": 4, "group_size": GROUP, "symmetric": False})
    assert torch.equal(read(parts, said), expected)
    parts["weight_zero_point"] = zeros.half()
    with pytest.raises(
        ValueError, match=r"torch\.float16 .*; expected int8 \(8, 2\), or int32 \(1"
    ):
        read(parts, said)


def test_each_layer_has_the_bits_that_its_words_hold() -> None:
    said = said_of(
        {"num_bits": 4, "group_size": GROUP}, {"num_bits": 8, "group_size": GROUP, "type": "int"}
    )
    for bits in (4, 8):
        parts, expected = packed_layer(bits, False, None)
        assert torch.equal(read(parts, said), expected)
        shapes = {name: tuple(part.shape) for name, part in parts.items()}
        assert FORM.shape(shapes, said) == (OUTPUTS, INPUTS)


def test_words_that_may_be_read_in_two_ways_are_refused() -> None:
    """Seven bits with gaps have as many words as eight bits; of few inputs, both packings of 3."""
    parts, _ = packed_layer(7, True, None)
    with pytest.raises(ValueError, match="2 layouts, of 7, 8 bits"):
        read(parts, said_of({"num_bits": 7}, {"num_bits": 8}))
    with pytest.raises(ValueError, match="16 words that hold 64 inputs are of no known layout"):
        read(parts, said_of({"num_bits": 4}))
    few = {**parts, "weight_packed": torch.zeros(OUTPUTS, 2, dtype=torch.int32)}
    few["weight_shape"] = torch.tensor([OUTPUTS, 20])
    with pytest.raises(ValueError, match="2 layouts, of 3 bits"):
        read(few, said_of({"num_bits": 3}))


def test_both_packings_are_one_within_a_word() -> None:
    numbers = torch.arange(8).repeat(2, 1)[:, :6]
    assert torch.equal(packed_rows(numbers, 5), packed_rows(numbers, 5, 6))
    parts = {
        "weight_packed": packed_rows(numbers, 5),
        "weight_scale": torch.ones(2, 1),
        "weight_shape": torch.tensor([2, 6]),
    }
    assert torch.equal(read(parts, said_of({"num_bits": 5})), numbers - 16.0)


def test_a_group_of_none_is_the_library_s_sign_for_no_order() -> None:
    parts, expected = packed_layer(4, False, None)
    parts["weight_g_idx"] = torch.full((INPUTS,), -1, dtype=torch.int32)
    assert torch.equal(read(parts, said_of({"num_bits": 4, "group_size": GROUP})), expected)


def test_a_weight_that_was_left_in_floats_is_refused() -> None:
    """A file of calibrated but uncompressed numbers: its scales are not to be multiplied with."""
    parts = {"weight": torch.ones(2, 4, dtype=torch.bfloat16), "weight_scale": torch.ones(2, 1)}
    with pytest.raises(ValueError, match=r"weight is torch\.bfloat16; int8 and 8-bit floats"):
        FORM.read(parts, said_of({"num_bits": 8}))


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ({"sparsity_config": {"format": "dense", "global_sparsity": 0.1}}, None),
        (
            {"sparsity_config": {"format": "sparse-24-bitmask"}},
            "'compressed-tensors', but the form",
        ),
        ({"transform_config": {}}, None),
        ({"transform_config": {"config_groups": {}}}, None),
        ({"transform_config": {"config_groups": {"R1": {}}}}, "its weights are rotated"),
        ({"config_groups": {"group_0": {"weights": {"num_bits": 16}}}}, "num_bits is 16; 1 to 8"),
        ({"config_groups": {"group_0": {"weights": {"num_bits": "4"}}}}, "num_bits is '4'"),
        ({"config_groups": None}, None),
    ],
)
def test_remarks_pass_and_what_is_not_undone_is_named(
    others: dict[str, Any], reason: str | None
) -> None:
    said = said_of({"num_bits": 4}, **others)
    found = why_not_read({"quantization_config": said})
    assert found is None if reason is None else reason in str(found)


@pytest.mark.parametrize(
    ("actorder", "is_by_activation"),
    [
        *((order, True) for order in ("group", "dynamic", True)),
        *((order, False) for order in ("weight", "static", None)),
    ],
)
def test_only_one_order_of_activation_makes_groups_of_any_inputs(
    actorder: Any, is_by_activation: bool
) -> None:
    integers = FORM.integers(said_of({"num_bits": 4, "group_size": -1, "actorder": actorder}))
    assert integers is not None
    assert integers.is_by_activation is is_by_activation
    assert integers.group_size is None


def test_integers_that_fill_words_have_one_packing() -> None:
    for bits in (1, 2, 4, 8):
        assert Packing(bits, False).words(100) == Packing(bits, True).words(100)
