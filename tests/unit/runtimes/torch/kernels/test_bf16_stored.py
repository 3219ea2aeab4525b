"""The form that ``bf16`` takes on a CPU which cannot multiply bfloat16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from serving.runtimes.torch.conversions import bf16
from serving.runtimes.torch.kernels.bf16_stored import Bf16StoredEmbedding, Bf16StoredLinear
from serving.seams import TokenBatch
from tests.unit.runtimes.tiny_models import load, save_model


def test_layers_compute_in_float32_with_rounded_weights() -> None:
    torch.manual_seed(0)
    linear, embedding = nn.Linear(64, 32), nn.Embedding(10, 8)
    x, ids = torch.randn(5, 64), torch.tensor([[1, 9]])
    expected = x.double() @ linear.weight.bfloat16().double().T + linear.bias.double()
    torch.testing.assert_close(Bf16StoredLinear(linear)(x).double(), expected, rtol=1e-5, atol=1e-6)
    rows = Bf16StoredEmbedding(embedding)(ids)
    assert torch.equal(rows, embedding.weight.bfloat16().float()[ids])


def test_the_variant_uses_them_where_the_cpu_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save_model(tmp_path, "embeddings")
    batch = TokenBatch(np.arange(1, 41).reshape(2, 20), np.ones((2, 20), np.int64))
    reference = load("fp32", checkpoint, "embeddings")
    monkeypatch.setattr(bf16, "multiplies_bf16", lambda: False)
    engine = load("bf16", checkpoint, "embeddings")
    share = engine.footprint().weights_bytes / reference.footprint().weights_bytes
    # Layer norms and biases stay float32: under 1 % of the model.
    assert 0.5 < share < 0.51
    dtypes = {tensor.dtype for tensor in engine.state_dict().values()}
    assert dtypes == {torch.bfloat16, torch.float32}
    # Only weights are rounded, to 8 bits.
    np.testing.assert_allclose(engine.forward(batch), reference.forward(batch), atol=0.005)
