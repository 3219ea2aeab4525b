from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from serving.runtimes.torch.footprint import weights_bytes
from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding
from serving.runtimes.torch.packed_sizes import int8_embedding_bytes


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("rows", "width"), [(5, 3), (50, 64), (5000, 20)])
def test_rows_equal_a_float64_reference(rows: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    embedding = nn.Embedding(rows, width)
    table = embedding.weight.detach().double().numpy()
    scale = np.abs(table).max(1, keepdims=True) / 127
    expected = np.rint(table / scale) * scale
    found = Int8Embedding.of(embedding, torch.float32)(torch.arange(rows)).double().numpy()
    # Only the float32 rounding of scale and product; a wrong step would be off by a whole scale.
    np.testing.assert_allclose(found, expected, rtol=3e-7)
    assert (np.abs(found - table) <= scale * 0.50001).all()


def test_ids_keep_their_shape_and_rows_their_type() -> None:
    embedding = Int8Embedding.of(nn.Embedding(10, 4), torch.bfloat16)
    rows = embedding(torch.tensor([[1, 2, 1], [0, 9, 5]]))
    assert rows.shape == (2, 3, 4)
    assert rows.dtype == torch.bfloat16
    assert torch.equal(rows[0, 0], rows[0, 2])
    assert not torch.equal(rows[0, 0], rows[0, 1])


def test_a_row_of_zeros_stays_zero() -> None:
    embedding = Int8Embedding.of(nn.Embedding(4, 8, padding_idx=0), torch.float32)
    rows = embedding(torch.tensor([0, 1]))
    assert not rows[0].any()
    assert rows[1].any()


def test_its_size_is_counted() -> None:
    assert weights_bytes(Int8Embedding.of(nn.Embedding(30, 17), torch.float32)) == 30 * 17 + 30 * 4
    assert int8_embedding_bytes((30, 17)) == 30 * 17 + 30 * 4
