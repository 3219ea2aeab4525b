"""The codebooks are those of QuIP#'s own code (``make_quip.py`` wrote their digests)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from serving.quantized_checkpoints.e8_codebooks import (
    e8p_codebook,
    e81b_codebook,
    read_e8p,
    read_e81b,
)

DIGESTS = json.loads((Path(__file__).parent / "quip_tables.json").read_text())


@pytest.mark.parametrize(("name", "codebook"), [("E8P", e8p_codebook()), ("E81B", e81b_codebook())])
def test_codebooks_are_the_library_s(name: str, codebook: Tensor) -> None:
    raw = (codebook * 4).numpy().astype(np.int8).tobytes()
    assert hashlib.sha256(raw).hexdigest() == DIGESTS[name]


def test_points_are_all_different_and_of_the_lattice() -> None:
    points = e8p_codebook()
    assert len(points.unique(dim=0)) == 2**16
    shifts = points - torch.where(points[:, :1] % 1 == 0.75, 0.25, -0.25)
    assert (shifts % 1 == 0.5).all()
    assert (shifts.sum(1) % 2 == 0).all()


def test_words_with_their_highest_bit_set_are_read() -> None:
    """int64 is signed, and the codes are not."""
    words = torch.full((16, 2), -1)
    assert torch.equal(read_e8p(words), e8p_codebook()[-1].repeat(16, 8))
    assert torch.equal(read_e81b(words), e81b_codebook()[-1].repeat(16, 16))
