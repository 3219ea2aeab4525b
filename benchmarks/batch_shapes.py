"""What batches of every shape cost a replica in memory, with rows padded to a multiple of N tokens.

Run as ``python -m benchmarks.batch_shapes int4 --multiple 8`` (1: not padded) for a recipe on torch
or on another ``--runtime``. Passes have 1 to 8 rows, and lengths drawn from a log-normal
distribution around 37 tokens.
"""

from __future__ import annotations

import os

from serving.app.ray_environment import KERNEL_THREADS

# As the service sets it for its replicas, and before torch loads OpenMP.
os.environ.update(KERNEL_THREADS)

import argparse
import statistics
import time

import numpy as np

from benchmarks.conditions import conditions
from benchmarks.demo_variants import MAX_BATCH_TOKENS, open_variant
from serving.machine.process_memory import resident_bytes
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.seams import EncoderEngine

MAX_TOKENS = 256
ROWS = (1, 1, 1, 2, 3, 4, 6, 8)
PASSES_PER_BLOCK = 250


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", choices=list(RECIPES))
    parser.add_argument("--runtime", choices=list(RUNTIMES), default="torch")
    parser.add_argument("--multiple", type=int, default=8)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    print(conditions(arguments.threads))
    recipe, runtime = arguments.recipe, arguments.runtime
    engine = open_variant(recipe, arguments.threads, runtime=runtime).engine
    random = np.random.default_rng(0)
    print(
        f"{recipe} on {runtime}, multiples of {arguments.multiple}: "
        f"{resident_mib():.0f} MiB at first"
    )
    for block in range(1, arguments.blocks + 1):
        seconds = [one_pass(engine, random, arguments.multiple) for _ in range(PASSES_PER_BLOCK)]
        print(
            f"after {block * PASSES_PER_BLOCK:5} passes: {resident_mib():.0f} MiB, "
            f"median pass {statistics.median(seconds) * 1e3:.1f} ms, "
            f"mean {statistics.mean(seconds) * 1e3:.1f} ms"
        )


def one_pass(engine: EncoderEngine, random: np.random.Generator, multiple: int) -> float:
    length = int(np.clip(random.lognormal(3.6, 0.9), 3, MAX_TOKENS))
    rows = min(int(random.choice(ROWS)), max(1, MAX_BATCH_TOKENS // length))
    input_ids = np.zeros((rows, -(-length // multiple) * multiple), dtype=np.int64)
    input_ids[:, :length] = random.integers(1_000, 20_000, (rows, length))
    batch = {
        "input_ids": input_ids,
        "attention_mask": (input_ids != 0).astype(np.int64),
        "token_type_ids": np.zeros_like(input_ids),
    }
    started = time.perf_counter()
    engine.forward(batch)
    return time.perf_counter() - started


def resident_mib() -> float:
    return resident_bytes() / 2**20


if __name__ == "__main__":
    main()
