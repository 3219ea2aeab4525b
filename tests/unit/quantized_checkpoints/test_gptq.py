"""What GPTQ's configurations say in other words, and layers with bits of their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from serving.quantized_checkpoints import why_not_read
from serving.quantized_checkpoints.awq import FORM as AWQ
from serving.quantized_checkpoints.gptq import FORM
from serving.quantized_checkpoints.integer_weight import IntegerWeight
from tests.unit.quantized_checkpoints.layer_tensors import packed_rows

OUTPUTS, INPUTS, GROUP = 32, 64, 32
SAID = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "sym": True}


def layer_of(bits: int) -> tuple[dict[str, Tensor], Tensor]:
    """A layer of the second form, and the weight that it stands for: zeros are all 1."""
    codes = torch.arange(OUTPUTS * INPUTS).view(OUTPUTS, INPUTS) * 7 % 2**bits
    zeros = torch.ones(INPUTS // GROUP, OUTPUTS, dtype=torch.int64)
    parts = {
        "qweight": packed_rows(codes, bits).T.contiguous(),
        "qzeros": packed_rows(zeros, bits),
        "scales": torch.full((INPUTS // GROUP, OUTPUTS), 0.5),
    }
    return parts, (codes - 1) * 0.5


def read(parts: dict[str, Tensor], said: dict[str, Any]) -> Tensor:
    weight = FORM.read(parts, said)
    assert isinstance(weight, IntegerWeight)
    return weight.expanded()


@pytest.mark.parametrize("key", ["format", "checkpoint_format"])
def test_the_form_of_zeros_has_two_names(key: str) -> None:
    """transformers 5 writes ``format`` alone."""
    parts, expected = layer_of(4)
    assert torch.equal(read(parts, {**SAID, key: "gptq_v2"}), expected)
    assert torch.equal(read(parts, {**SAID, key: "gptq"}), expected - 0.5)
    assert torch.equal(read(parts, SAID), expected - 0.5)
    reason = why_not_read({"quantization_config": {**SAID, key: "marlin"}})
    assert "checkpoint_format is 'marlin'; gptq and gptq_v2 are read" in str(reason)


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_a_layer_has_the_bits_that_its_zeros_have(bits: int) -> None:
    parts, expected = layer_of(bits)
    assert torch.equal(read(parts, {**SAID, "format": "gptq_v2"}), expected)
    shapes = {name: tuple(part.shape) for name, part in parts.items()}
    assert FORM.shape(shapes, SAID) == (OUTPUTS, INPUTS)


def test_settings_of_some_modules_are_among_the_integers() -> None:
    dynamic = {"+:.*down_proj": {"bits": 8, "group_size": 64}, "-:.*lm_head": {}}
    integers = FORM.integers({**SAID, "dynamic": dynamic})
    assert integers is not None
    assert integers.bits == {4, 8}
    assert integers.group_size == 0
    said = {**SAID, "dynamic": {".*": {"bits": 5}}}
    assert "bits is 5" in str(why_not_read({"quantization_config": said}))


def test_sizes_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="group_size is '128'; a whole number is read"):
        why_not_read({"quantization_config": {**SAID, "group_size": "128"}})


@pytest.mark.parametrize("is_static", [False, True])
def test_static_groups_are_of_neighbours(is_static: bool) -> None:
    integers = FORM.integers({**SAID, "desc_act": True, "static_groups": is_static})
    assert integers is not None
    assert integers.is_by_activation is not is_static


def test_words_of_another_size_are_refused() -> None:
    parts, _ = layer_of(4)
    with pytest.raises(ValueError, match=r"qweight is torch\.int16"):
        read({**parts, "qweight": parts["qweight"].to(torch.int16)}, SAID)
    with pytest.raises(ValueError, match=r"qzeros are \(2, 5\) for 32 outputs"):
        read({**parts, "qzeros": torch.zeros(2, 5).int()}, SAID)
    with pytest.raises(ValueError, match=r"qweight is \(8, 32\) for integers of 3 bits"):
        read({**parts, "qzeros": torch.zeros(2, 3).int()}, SAID)
    awq = {"qweight": torch.zeros(8, 2).int(), "qzeros": torch.zeros(1, 1).int()}
    with pytest.raises(ValueError, match=r"qweight is \(8, 2\) for 8 outputs of 4 bits"):
        AWQ.read({**awq, "scales": torch.ones(1, 8)}, {})
