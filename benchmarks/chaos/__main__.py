"""``python -m benchmarks.chaos [FAULT …]``: does each fault to a service under load.

Prints a fault's rows as soon as they are known, and the whole table in Markdown in the end.
"""

from __future__ import annotations

import argparse
import asyncio
import os
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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos")
    parser.add_argument("faults", nargs="*", metavar="FAULT", help="all of them if none is named")
    parser.add_argument("--seed", type=int, default=1, help="of the load")
    given = parser.parse_args()
    names = given.faults or list(FAULTS)
    if unknown := [name for name in names if name not in FAULTS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    needs_disk = any(FAULTS[name].needs_disk for name in names)
    if needs_disk and os.geteuid() != 0:
        parser.error("only root may mount the disk that is filled; name other faults")
    begun = time.monotonic()
    rows: list[FaultRow] = []
    while len(rows) < len(names):
        with tempfile.TemporaryDirectory() as folder:
            _run(names[len(rows) :], rows, Path(folder), given.seed, with_disk=needs_disk)
    print("", conditions(len(os.sched_getaffinity(0))), "", table(rows), sep="\n")
    print(f"{time.monotonic() - begun:.0f} s, seed {given.seed}")
    return 1 if any(row.missing for row in rows) else 0


def _run(
    names: list[str], rows: list[FaultRow], folder: Path, seed: int, *, with_disk: bool
) -> None:
    """Do faults to one service until one is left that does not recover."""
    with running_prey(folder, with_disk=with_disk) as prey:
        for name in names:
            row = asyncio.run(run_fault(FAULTS[name], prey, seed))
            rows.append(row)
            print(table([row]), flush=True)
            if not row.has_recovered:
                print("it is started anew", flush=True)
                return


if __name__ == "__main__":
    sys.exit(main())
