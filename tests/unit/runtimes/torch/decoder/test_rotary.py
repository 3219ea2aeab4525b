"""Positions are those of transformers, to the last bit, for every scaling that is known."""

from __future__ import annotations

import pytest
import torch

from serving.runtimes.torch.decoder.rotary import rotary_of
from tests.unit.runtimes.tiny_generators import MODELS, random_model

SCALINGS = ("llama", "linear-rope", "llama3-rope", "yarn-rope", "qwen3")
POSITIONS = 1_000


@pytest.mark.parametrize("name", SCALINGS)
def test_a_table_is_what_transformers_multiplies_with(name: str) -> None:
    model = random_model(**MODELS[name])
    cos, sin = model.model.rotary_emb(torch.zeros(1), torch.arange(POSITIONS)[None])
    half = cos.shape[-1] // 2
    table = rotary_of(model).table(POSITIONS)
    assert table.dtype == torch.complex64
    assert torch.equal(table.real, cos[0, :, :half])
    assert torch.equal(table.imag, sin[0, :, :half])


@pytest.mark.parametrize("name", ["llama3-rope", "yarn-rope", "linear-rope"])
def test_scaled_positions_differ_from_plain_ones(name: str) -> None:
    scaled = rotary_of(random_model(**MODELS[name])).table(128)
    plain = rotary_of(random_model(**MODELS["llama"])).table(128)
    assert scaled.shape == plain.shape == (128, 16)
    assert (scaled - plain).abs().max() > 1
