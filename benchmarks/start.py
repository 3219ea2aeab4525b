"""How long the demo takes from ``serve`` until every variant is ready, beside another checkout.

Run as ``python -m benchmarks.start [--beside OTHER_CHECKOUT]``. Checkouts take turns; each is
started once before, so that its artifacts, or its demo models, are there.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

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
    seconds: dict[Path, list[float]] = {checkout: [] for checkout in checkouts}
    for round_ in range(arguments.rounds + 1):
        for checkout in checkouts:
            took, variants = start_once(checkout)
            what = "not counted" if round_ == 0 else f"round {round_}"
            print(f"{checkout.name}: {variants} variants ready after {took:.1f} s ({what})")
            if round_:
                seconds[checkout].append(took)
    for checkout, times in seconds.items():
        print(f"{checkout.name}: median {statistics.median(times):.1f} s")
    if arguments.beside:
        pairs = zip(*seconds.values(), strict=True)
        print(f"ratio inside a round: {statistics.median(own / other for own, other in pairs):.2f}")


def start_once(checkout: Path) -> tuple[float, int]:
    """Seconds until ready, and how many variants there are; the service is stopped after that."""
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
            while time.perf_counter() - started < LIMIT_S:
                assert process.poll() is None, "the service ended"
                try:
                    answer = httpx.get(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5)
                    if answer.status_code == 200:
                        took = time.perf_counter() - started
                        models = httpx.get(f"http://127.0.0.1:{port}/v1/models", timeout=30).json()
                        return took, len(models["data"])
                except httpx.HTTPError:
                    pass
                time.sleep(0.2)
            raise AssertionError(f"not ready within {LIMIT_S} s")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)


if __name__ == "__main__":
    main()
