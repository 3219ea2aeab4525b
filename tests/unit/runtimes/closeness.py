"""How near two engines' rows are, by a formula of the tests' own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]


def mean_cosine(a: Rows, b: Rows) -> float:
    """Mean cosine of each row of float32 (…, numbers) to the same row of the other."""
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(((a * b).sum(-1) / lengths).mean())
