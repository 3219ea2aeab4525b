"""``python -m benchmarks.chaos.memory``: takes memory until little is left, and holds it.

Ends when its input does. The kernel would end it before any other process.
"""

from __future__ import annotations

import select
import sys
import time
from pathlib import Path

import psutil

LEFT_BYTES = 3 * 1024**3
"""So much stays available to all others."""

MOST_BYTES = 64 * 1024**3
STEP_BYTES = 64 * 1024**2
LOOK_S = 0.1

FULL = "full"
"""Is printed once so little is left."""


def main() -> None:
    Path("/proc/self/oom_score_adj").write_text("1000")
    held: list[bytearray] = []
    has_said = False
    while not select.select([sys.stdin], [], [], LOOK_S if has_said else 0)[0]:
        spare = psutil.virtual_memory().available - LEFT_BYTES
        if spare >= STEP_BYTES and len(held) * STEP_BYTES < MOST_BYTES:
            held.append(_touched(STEP_BYTES))
            continue
        if spare < -STEP_BYTES and held:
            held.pop()
            continue
        if not has_said:
            print(FULL, len(held) * STEP_BYTES, flush=True)
            has_said = True
        time.sleep(LOOK_S)


def _touched(size: int) -> bytearray:
    """Memory that the kernel has given, not only promised."""
    piece = bytearray(size)
    piece[::4096] = b"\1" * len(range(0, size, 4096))
    return piece


if __name__ == "__main__":
    main()
