"""Positions are those of transformers, to the last bit, for every scaling that is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from serving.runtimes.torch.decoder.architectures import family_of
from serving.runtimes.torch.decoder.rotary import Rotary, rotary_of
from tests.unit.runtimes.tiny_generators import MODELS, random_model

SCALINGS = ("llama", "linear-rope", "llama3-rope", "yarn-rope", "qwen3")
POSITIONS = 1_000


def rotary(model: Any) -> Rotary:
    (part,) = family_of(model.config.model_type).model_parts(model).rotaries
    sizes = model.config
    width = getattr(sizes, "head_dim", None) or sizes.hidden_size // sizes.num_attention_heads
    return rotary_of(part, width)


@pytest.mark.parametrize("name", SCALINGS)
def test_a_table_is_what_transformers_multiplies_with(name: str) -> None:
    model = random_model(**MODELS[name])
    cos, sin = model.model.rotary_emb(torch.zeros(1), torch.arange(POSITIONS)[None])
    half = cos.shape[-1] // 2
    table = rotary(model).table(POSITIONS)
    assert table.dtype == torch.complex64
    assert torch.equal(table.real, cos[0, :, :half])
    assert torch.equal(table.imag, sin[0, :, :half])


@pytest.mark.parametrize("name", ["llama3-rope", "yarn-rope", "linear-rope"])
def test_scaled_positions_differ_from_plain_ones(name: str) -> None:
    scaled = rotary(random_model(**MODELS[name])).table(128)
    plain = rotary(random_model(**MODELS["llama"])).table(128)
    assert scaled.shape == plain.shape == (128, 16)
    assert (scaled - plain).abs().max() > 1


def test_what_no_position_turns_stays_as_it_is() -> None:
    model = random_model(**MODELS["phi3-partial"])
    table = rotary(model).table(POSITIONS)
    assert table.shape == (POSITIONS, 16)
    cos, _ = model.model.rotary_emb(torch.zeros(1), torch.arange(POSITIONS)[None])
    assert torch.equal(table.real[:, :12], cos[0, :, :12])
    assert torch.equal(table[:, 12:], torch.ones(POSITIONS, 4, dtype=torch.complex64))
