"""Heads in torch against the one definition in numpy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch

from serving import heads
from serving.runtimes.torch.pooling import pool
from serving.seams import Head, Logits, PerToken, Pooled, Pooling

HEADS: list[Head] = [*(Pooled(pooling=pooling) for pooling in get_args(Pooling)), PerToken()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("head", HEADS, ids=str)
def test_hidden_states_are_pooled_as_in_numpy(head: Head, dtype: torch.dtype) -> None:
    hidden = torch.randn(5, 7, 12, generator=torch.Generator().manual_seed(0)).to(dtype)
    mask = (np.arange(7) < np.array([7, 1, 4, 6, 2])[:, None]).astype(np.int64)
    output = SimpleNamespace(last_hidden_state=hidden)
    rows = pool(head, output, torch.from_numpy(mask))
    assert rows.dtype == torch.float32
    expected = heads.pool(head, hidden.float().numpy(), mask)
    # Means may be summed in another order; the others are copies.
    np.testing.assert_allclose(rows.numpy(), expected, rtol=0, atol=1e-6)


def test_logits_become_float32() -> None:
    logits = torch.tensor([[1.5, -2.0], [0.25, 3.0]], dtype=torch.bfloat16)
    rows = pool(Logits(), SimpleNamespace(logits=logits), torch.ones(2, 3, dtype=torch.int64))
    assert rows.dtype == torch.float32
    assert torch.equal(rows, logits.float())
