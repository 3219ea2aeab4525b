"""A process that keeps evidence until it is killed; prints what is kept, as soon as it is.

``python -m tests.unit.monitor.evidence.killed_writer FOLDER FIRST``
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from serving.monitor.evidence import Evidence, LiveSample
from serving.seams import Comparison
from tests.unit.monitor.evidence.pieces import PAIR, PROBE_SET, change, model_config


async def write(folder: Path, first: int) -> None:
    """Write samples with rising numbers, and a verdict after every tenth."""
    evidence = Evidence(folder, [model_config()])
    await evidence.open()
    assert not evidence.not_kept, evidence.not_kept
    number = first
    while True:
        sample = LiveSample(Comparison(1.0, {"number": float(number)}), None)
        await evidence.add_live(PAIR, PROBE_SET, sample)
        print("sample", number, flush=True)  # noqa: T201
        if number % 10 == 0:
            verdict = replace(change(at=evidence.now()), reason=str(number))
            await evidence.add_verdict(PAIR, verdict)
            print("verdict", number, flush=True)  # noqa: T201
        number += 1


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), int(sys.argv[2])))
