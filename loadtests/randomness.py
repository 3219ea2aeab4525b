"""Random numbers of a plan: one seed, a stream of its own for each use."""

from __future__ import annotations

import zlib
from typing import Literal

import numpy as np


def random_numbers(
    use: Literal["arrivals", "inputs", "order of turns"], seed: tuple[int, ...]
) -> np.random.Generator:
    """Same use and seed, same numbers; two uses of one seed have nothing in common."""
    return np.random.default_rng((zlib.crc32(use.encode()), *seed))
