"""The form that ``bf16`` takes on a CPU which cannot multiply bfloat16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from serving.runtimes.torch.conversions import bf16
from serving.runtimes.torch.kernels.bf16_stored import Bf16StoredEmbedding, Bf16StoredLinear
from tests.unit.runtimes.tiny_models import HEADS, open_prepared, padded_batch, prepare, save_model


def test_layers_compute_in_float32_with_rounded_weights() -> None:
    torch.manual_seed(0)
    linear, embedding = nn.Linear(64, 32), nn.Embedding(10, 8)
    x, ids = torch.randn(5, 64), torch.tensor([[1, 9]])
    expected = x.double() @ linear.weight.bfloat16().double().T + linear.bias.double()
    y = Bf16StoredLinear.of(linear)(x)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-6)
    rows = Bf16StoredEmbedding.of(embedding)(ids)
    assert torch.equal(rows, embedding.weight.bfloat16().float()[ids])


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
