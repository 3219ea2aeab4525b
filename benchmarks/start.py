"""How long the demo takes from ``serve`` until every variant is ready, beside another checkout.

Also told: when the gateway answered for the first time, the processor time of all processes until
ready, and the memory that they occupy then, where pages that several have count once.

Run as ``python -m benchmarks.start [--beside OTHER_CHECKOUT]``. Checkouts take turns; each is
started once before, so that its artifacts, or its demo models, are there.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks.conditions import conditions
from tests.integration.running_service import free_port

HERE = Path(__file__).resolve().parents[1]
LIMIT_S = 900


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beside", type=Path, help="folder of another checkout of quantserve")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    print(conditions(len(os.sched_getaffinity(0))))
    checkouts = [HERE] + ([arguments.beside.resolve()] if arguments.beside else [])
    starts: dict[Path, list[Start]] = {checkout: [] for checkout in checkouts}
    for round_ in range(arguments.rounds + 1):
        for checkout in checkouts:
            start = start_once(checkout)
            what = "not counted" if round_ == 0 else f"round {round_}"
            print(f"{checkout.name}: {start} ({what})")
            if round_:
                starts[checkout].append(start)
    for checkout, done in starts.items():
        print(f"{checkout.name}: median {statistics.median(one.ready_s for one in done):.1f} s")
    if arguments.beside:
        pairs = zip(*starts.values(), strict=True)
        ratios = [own.ready_s / other.ready_s for own, other in pairs]
        print(f"ratio inside a round: {statistics.median(ratios):.2f}")


@dataclass(frozen=True)
class Start:
    """What one start took, until every variant was ready.

    Attributes:
        variants: How many.
        answered_s: Seconds until the gateway answered for the first time.
        ready_s: Seconds until all were ready.
        core_s: Processor time of all processes of the service, those that ended included.
        occupied: Their memory in bytes, where shared pages count once.
    """

    variants: int
    answered_s: float
    ready_s: float
    core_s: float
    occupied: int

    def __str__(self) -> str:
        return (
            f"answered after {self.answered_s:.1f} s, {self.variants} variants ready after "
            f"{self.ready_s:.1f} s and {self.core_s:.0f} s of a core, "
            f"{self.occupied / 2**20:.0f} MiB occupied"
        )


def start_once(checkout: Path) -> Start:
    """Start the demo, measure, and stop it."""
    port = free_port()
    started = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving", "serve", "--port", str(port)],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            return _watch(process, f"http://127.0.0.1:{port}", started)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)


def _watch(process: subprocess.Popen[bytes], url: str, started: float) -> Start:
    answered_s = None
    while (passed := time.perf_counter() - started) < LIMIT_S:
        assert process.poll() is None, "the service ended"
        with contextlib.suppress(httpx.HTTPError, ValueError):
            answer = httpx.get(f"{url}/v2/health/ready", timeout=5)
            if answered_s is None and "ready" in answer.json():
                answered_s = passed
            if answered_s is not None and answer.status_code == 200:
                core_s, occupied = _books(psutil.Process(process.pid))
                models = httpx.get(f"{url}/v1/models", timeout=30).json()["data"]
                return Start(len(models), answered_s, passed, core_s, occupied)
        time.sleep(0.2)
    raise AssertionError(f"not ready within {LIMIT_S} s")


def _books(service: psutil.Process) -> tuple[float, int]:
    """Processor time of a process and all below it, and their memory."""
    core_s, occupied = 0.0, 0
    for process in [service, *service.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            core_s += sum(process.cpu_times()[:4])
            occupied += process.memory_full_info().pss
    return core_s, occupied


if __name__ == "__main__":
    main()
