"""Short requests beside requests of many long texts, in one replica's batcher, without HTTP.

Run as ``python -m benchmarks.big_requests``. Clients keep ``--big`` requests of 256 texts waiting
at MiniLM's batcher; another asks for one text of eight tokens every so often. Printed are the
short requests' times, alone and beside the others, in ms and in passes over a full batch.
"""

from __future__ import annotations

import os

from serving.app.ray_environment import KERNEL_THREADS

os.environ.update(KERNEL_THREADS)

import argparse
import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.conditions import conditions
from benchmarks.demo_variants import open_variant
from serving.cores import UnsharedCores
from serving.replica.encoder.batcher import Batcher
from serving.replica.encoder.loading import MAX_BATCH_TOKENS, OpenedEncoder
from serving.seams import Item

TEXTS = 256
SHORT, LONG = "A fine film.", "A long and winding story of a small village by the sea. " * 4
EVERY_S = 0.05
MAX_WAITING = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="int8-dynamic")
    parser.add_argument("--big", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    print(conditions(threads))
    # The one thread that opens is the one that runs the passes.
    worker = ThreadPoolExecutor(1)
    opened = worker.submit(open_variant, arguments.recipe, threads).result()
    pass_s = worker.submit(full_pass, opened).result()
    print(f"a pass over {MAX_BATCH_TOKENS['cpu']:,} tokens: {pass_s * 1e3:.0f} ms")
    for big in (0, arguments.big):
        times = asyncio.run(measure(opened, worker, threads, big, arguments.seconds))
        p50, p95 = np.percentile(times, (50, 95))
        print(
            f"{len(times)} short requests beside {big} of {TEXTS} texts: p50 {p50 * 1e3:.0f} ms, "
            f"p95 {p95 * 1e3:.0f} ms ({p95 / pass_s:.2f} passes)"
        )


def full_pass(opened: OpenedEncoder) -> float:
    """Median seconds of a pass over as many long texts as fit."""
    items = prepare(opened, LONG, 64)
    batch = opened.task.collate(items[: MAX_BATCH_TOKENS["cpu"] // items[0].cost])
    times = []
    for _ in range(9):
        started = time.perf_counter()
        opened.engine.forward(batch)
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def prepare(opened: OpenedEncoder, text: str, count: int) -> list[Item]:
    """Items of equal texts."""
    return list(opened.task.prepare([text] * count, True))


async def measure(
    opened: OpenedEncoder, worker: ThreadPoolExecutor, threads: int, big: int, seconds: float
) -> list[float]:
    """Seconds of each short request."""
    batcher = Batcher(
        opened.engine,
        opened.task.collate,
        worker,
        UnsharedCores(threads),
        MAX_BATCH_TOKENS["cpu"],
        MAX_WAITING,
        lambda size, cost: None,
        opened.proven,
    )
    long, short = prepare(opened, LONG, TEXTS), prepare(opened, SHORT, 1)
    until = time.perf_counter() + seconds

    async def ask(items: list[Item]) -> None:
        with batcher.place() as place:
            await batcher.run(place, items)

    async def keep_asking() -> None:
        while time.perf_counter() < until:
            await ask(long)

    asking = [asyncio.create_task(keep_asking()) for _ in range(big)]
    times = []
    while time.perf_counter() < until:
        started = time.perf_counter()
        await ask(short)
        times.append(time.perf_counter() - started)
        await asyncio.sleep(EVERY_S)
    await asyncio.gather(*asking)
    return times


if __name__ == "__main__":
    main()
