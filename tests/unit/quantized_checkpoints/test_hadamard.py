"""The matrices are those of QuIP#'s own code (``make_quip.py`` wrote their digests)."""

from __future__ import annotations

import hashlib
import json
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
import torch

from serving.quantized_checkpoints.hadamard import (
    hadamard_factors,
    hadamard_matrix,
    transform_columns,
    transform_rows,
)

DIGESTS = json.loads((Path(__file__).parent / "quip_tables.json").read_text())
SIZES = [int(name) for name in DIGESTS if name.isdecimal()]


@pytest.mark.parametrize("size", SIZES)
def test_matrices_are_the_library_s(size: int) -> None:
    matrix = hadamard_matrix(size)
    assert torch.equal(matrix @ matrix.T, size * torch.eye(size))
    raw = matrix.numpy().astype(np.int8).tobytes()
    assert hashlib.sha256(raw).hexdigest() == DIGESTS[str(size)]


@pytest.mark.parametrize("size", [2, 64, 128, 8_192, 12 * 16, 172 * 2])
@pytest.mark.parametrize("at_a_time", [2**20, 3])
def test_rows_and_columns_are_multiplied_by_the_product_of_the_factors(
    monkeypatch: pytest.MonkeyPatch, size: int, at_a_time: int
) -> None:
    """Whole numbers, so that float32 is exact; all at once as in pieces."""
    torch.manual_seed(size)
    rows = torch.randint(-4, 5, (7, size)).float()
    expected = rows @ reduce(torch.kron, hadamard_factors(size), torch.ones(1, 1)).T
    columns = rows.T.contiguous()
    monkeypatch.setattr("serving.quantized_checkpoints.hadamard._PIECE", at_a_time * size)
    transform_rows(rows)
    transform_columns(columns)
    assert torch.equal(rows, expected)
    assert torch.equal(columns.T, expected)


@pytest.mark.parametrize(("size", "reason"), [(6, "size 6"), (44 * 8, "size 44 is known, but of")])
def test_sizes_that_the_format_has_not_are_refused(size: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        hadamard_factors(size)
