"""``python -m benchmarks.chaos [FAULT …]``: does each fault to a service under load.

Prints a fault's rows as soon as they are known, and in the end the whole table in Markdown and
which promises were not kept.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.chaos.checker import FaultRow, table
from benchmarks.chaos.experiment import run_fault
from benchmarks.chaos.plan import FAULTS
from benchmarks.chaos.running import running_prey
from benchmarks.conditions import conditions


def main() -> int:
    given = _arguments()
    # The service is stopped and the disk unmounted then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    begun = time.monotonic()
    ends = begun + 60 * given.minutes
    rows: list[FaultRow] = []
    while (left := given.faults[len(rows) :]) and time.monotonic() < ends:
        with tempfile.TemporaryDirectory() as folder:
            _run(left, rows, Path(folder), given.seed, ends)
    print("", conditions(len(os.sched_getaffinity(0))), "", table(rows), sep="\n")
    print(f"{time.monotonic() - begun:.0f} s, seed {given.seed}")
    broken = [f"{row.fault}: {said}" for row in rows for said in row.broken]
    broken += [f"{name}: not begun within {given.minutes:g} minutes" for name in left]
    print(*broken, sep="\n")
    return 1 if broken else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos")
    parser.add_argument("faults", nargs="*", metavar="FAULT", help="all of them if none is named")
    parser.add_argument("--minutes", type=float, default=30, help="after which no fault begins")
    parser.add_argument("--seed", type=int, default=1, help="of the load")
    given = parser.parse_args()
    given.faults = given.faults or list(FAULTS)
    if unknown := [name for name in given.faults if name not in FAULTS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    if shutil.which("prometheus") is None:
        parser.error("prometheus is missing: apt-get install prometheus")
    if os.geteuid() != 0 and any(FAULTS[name].needs_disk for name in given.faults):
        parser.error("only root may mount the disk that is filled; name other faults")
    return given


def _run(names: list[str], rows: list[FaultRow], folder: Path, seed: int, ends: float) -> None:
    """Do faults to one service until one is left that does not recover, or time is up."""
    needs_disk = any(FAULTS[name].needs_disk for name in names)
    with running_prey(folder, with_disk=needs_disk) as prey:
        for name in names:
            if time.monotonic() > ends:
                return
            row = asyncio.run(run_fault(FAULTS[name], prey, seed))
            rows.append(row)
            print(table([row]), flush=True)
            if not row.has_recovered:
                print("it is started anew", flush=True)
                return


if __name__ == "__main__":
    sys.exit(main())
