"""How many kernels this process keeps for numbers of rows that may come again."""

from __future__ import annotations

import os

LINEAR_SHAPES = 5
"""Of a decoder: three or four in each layer, and the head."""

SPARE_STEPS = 8
"""Prompts, each with its own number of tokens, whose kernels may be kept beside those of steps."""

CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""oneDNN's own, and torch's above it."""


def bound_kept_kernels(max_running: int) -> None:
    """Bound them for this process; after its first kernel it is too late.

    oneDNN prepares a kernel for each number of rows, some 0.4 MB of float32; it and torch keep the
    latest 1,024 each, so that a decoder whose prompts are of every length grew by 120 MB in 80 of
    them and by more than 200 in an hour. Preparing one again takes no time that can be told from
    none beside a prompt (benchmarks/RESULTS.md). What the environment says already stays.

    Args:
        max_running: Sequences that one step may continue: of these steps every kernel is kept.
    """
    for name in CACHES:
        os.environ.setdefault(name, str(LINEAR_SHAPES * (max_running + SPARE_STEPS)))
