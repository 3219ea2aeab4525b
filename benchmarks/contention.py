"""What spinning kernel threads cost when replicas share the cores.

Run as ``python -m benchmarks.contention``. One process, then two at once, run forward passes of
MiniLM in fp32 on all cores, under each way in which an idle OpenMP thread can wait.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from serving.app.ray_environment import KERNEL_THREADS

SECONDS = 3.0
SHAPES = ((1, 32), (8, 128))
WAYS = {
    "torch's default": {},
    "spin 10 µs": {"GOMP_SPINCOUNT": "1000"},
    "quantserve's": KERNEL_THREADS,
    "never spin": {"OMP_WAIT_POLICY": "PASSIVE"},
}


def main() -> None:
    if len(sys.argv) > 1:
        measure()
        return
    from benchmarks.conditions import conditions

    print(conditions(len(os.sched_getaffinity(0))))
    print("median ms of one forward pass at 1×32 and at 8×128 tokens, each process")
    for processes in (1, 2):
        for name, settings in WAYS.items():
            print(f"  {processes} process(es), {name:16}: {run(processes, settings)}")


def run(processes: int, settings: dict[str, str]) -> str:
    command = [sys.executable, "-m", "benchmarks.contention", "measure"]
    started = [
        subprocess.Popen(
            command,
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(processes)
    ]
    return ", ".join(process.communicate()[0].strip() for process in started)


def measure() -> None:
    # Loads OpenMP, which reads its settings once, before ``benchmarks.encoders`` changes them.
    import torch  # noqa: F401

    from benchmarks.demo_variants import open_variant
    from benchmarks.encoders import random_batch

    engine = open_variant("fp32", len(os.sched_getaffinity(0))).engine
    # Both processes start their clocks together, whatever loading took.
    time.sleep(15 - time.time() % 15)
    medians = []
    for rows, tokens in SHAPES:
        batch = random_batch(rows, tokens)
        seconds = []
        deadline = time.perf_counter() + SECONDS
        while time.perf_counter() < deadline:
            started = time.perf_counter()
            engine.forward(batch)
            seconds.append(time.perf_counter() - started)
        medians.append(f"{statistics.median(seconds) * 1e3:.1f}")
    print(" / ".join(medians))


if __name__ == "__main__":
    main()
