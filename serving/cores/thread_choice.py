"""How many threads a variant's passes are worth, by measurement."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

GOOD_ENOUGH = 1.05
"""More threads must save a twentieth: those that save less are of more use to other replicas."""

MEASURE_S = 1.0
"""Most seconds that measuring takes, but for one round."""

ROUNDS = 12

PassTimes = Mapping[int, float]
"""Seconds of a pass by the number of its threads."""


def thread_counts(most: int) -> list[int]:
    """Powers of two up to ``most``, and ``most`` itself."""
    powers = [2**i for i in range(most.bit_length()) if 2**i < most]
    return [*powers, most]


async def measure_passes(
    counts: list[int], run: Callable[[int], Awaitable[float]]
) -> dict[int, float]:
    """Time passes on different numbers of threads, in turns; the shortest of each counts.

    The shortest, because whatever else runs on the machine can only make a pass longer.

    Args:
        counts: Numbers of threads.
        run: Runs a pass on so many; returns its seconds.
    """
    times = dict.fromkeys(counts, float("inf"))
    until = time.monotonic() + MEASURE_S
    for _ in range(ROUNDS):
        for count in counts:
            times[count] = min(times[count], await run(count))
        if time.monotonic() > until:
            break
    return times


def choose_threads(times: PassTimes) -> int:
    """The smallest number of threads that is as good as the best, within a twentieth."""
    best = min(times.values())
    return min(count for count, seconds in times.items() if seconds <= GOOD_ENOUGH * best)
