"""What a core turn costs: taking cores and giving them back, and asking again while holding them.

Run as ``python -m benchmarks.core_turns``. Alone, and with many other members that are idle.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from benchmarks.conditions import conditions
from serving.cores.turn import CoreTurn
from serving.machine.cores import core_numbers

CALLS = 5_000


def main() -> None:
    print(conditions(len(os.sched_getaffinity(0))))
    for others in (0, 13):
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            members = [
                stack.enter_context(closing(CoreTurn(99, core_numbers(), Path(folder))))
                for _ in range(1 + others)
            ]
            turn = members[0]

            def take_and_give_back(turn: CoreTurn = turn) -> None:
                turn.take()
                turn.give_back()

            alone = microseconds(take_and_give_back)
            turn.take()
            again = microseconds(turn.take)
            print(f"{others:3} others: take and give back {alone:.1f} µs, ask again {again:.1f} µs")


def microseconds(call: Callable[[], object]) -> float:
    """Median of many calls."""
    times = []
    for _ in range(CALLS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


if __name__ == "__main__":
    main()
