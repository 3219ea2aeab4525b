"""Layers that store 16 bits: ``f16``, and ``bf16`` where the CPU cannot multiply bfloat16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from serving.errors import ConfigError
from serving.runtimes.torch.conversions import bf16
from serving.runtimes.torch.conversions.f16 import store_in_f16
from serving.runtimes.torch.kernels.half_stored import (
    Bf16StoredEmbedding,
    Bf16StoredLinear,
    F16StoredEmbedding,
    F16StoredLinear,
)
from tests.unit.runtimes.tiny_models import HEADS, open_prepared, padded_batch, prepare, save_model

FORMS = [
    (Bf16StoredLinear, Bf16StoredEmbedding, torch.bfloat16),
    (F16StoredLinear, F16StoredEmbedding, torch.float16),
]


@pytest.mark.parametrize(("stored", "table", "dtype"), FORMS)
def test_layers_compute_in_float32_with_rounded_weights(
    stored: type[Bf16StoredLinear], table: type[Bf16StoredEmbedding], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    linear, embedding = nn.Linear(64, 32), nn.Embedding(10, 8)
    x, ids = torch.randn(5, 64), torch.tensor([[1, 9]])
    expected = x.double() @ linear.weight.to(dtype).double().T + linear.bias.double()
    y = stored.of(linear)(x)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-6)
    rows = table.of(embedding)(ids)
    assert torch.equal(rows, embedding.weight.to(dtype).float()[ids])


def test_numbers_beyond_float16_are_refused() -> None:
    linear = nn.Linear(8, 4)
    linear.weight.data[1, 2] = 70_000
    with pytest.raises(ConfigError, match="holds numbers up to 65,504; this model has larger"):
        store_in_f16(linear)


def test_the_recipe_uses_them_where_the_cpu_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, head = save_model(tmp_path / "model", "embeddings"), HEADS["embeddings"]
    monkeypatch.setattr(bf16, "multiplies_bf16", lambda: False)
    rows = {}
    for recipe in ("fp32", "bf16"):
        prepare("torch", recipe, checkpoint, head, tmp_path / recipe)
        engine = open_prepared("torch", recipe, head, tmp_path / recipe)
        rows[recipe] = engine.forward(padded_batch([20, 20]))
        rows[recipe] /= np.linalg.norm(rows[recipe], axis=1, keepdims=True)
    sizes = [(tmp_path / recipe / "weights.safetensors").stat().st_size for recipe in rows]
    # Layer norms and biases stay float32: under 1 % of the model.
    assert 0.5 < sizes[1] / sizes[0] < 0.51
    # Only weights are rounded, to 8 bits.
    np.testing.assert_allclose(rows["bf16"], rows["fp32"], atol=0.005)
