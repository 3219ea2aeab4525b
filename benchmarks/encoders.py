"""Speed, size and closeness of MiniLM and the demo's classifier in every cell of the matrix.

Run as ``python -m benchmarks.encoders`` after ``python -m serving.demo.prepare``. Every recipe on
every runtime that works here is opened from its artifact. For speed the cells take turns in every
round, in this process, so that drift of the machine hits all alike; a ratio is the median over
rounds of the ratio inside a round. Memory, and CPU time to the first answer, are those of a process
of its own that opens one cell, without Ray. Prints the tables of ``docs/variants.md``.
"""

from __future__ import annotations

import os

from serving.app.ray_environment import KERNEL_THREADS

# As the service sets it for its replicas, and before torch loads OpenMP.
os.environ.update(KERNEL_THREADS)

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.conditions import conditions
from benchmarks.demo_variants import NUM_SENTENCES, answer, open_variant, sample_sentences
from serving.machine.process_memory import private_bytes, resident_bytes
from serving.quality.dataset import read_examples
from serving.recipes import RECIPES
from serving.replica.encoder.loading import OpenedEncoder
from serving.runtimes import RUNTIMES
from serving.runtimes.matrix import why_not
from serving.seams import Arrays, Combination

CLASSIFIER = "~/.cache/quantserve/demo/sentiment"
LABELLED = Path("serving/demo/reviews_test.jsonl")
SHAPES = ((1, 32), (8, 128))
BASE = ("torch", "fp32")
MIB = 1024**2

Cell = tuple[str, str]
"""Runtime and recipe."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--alone", nargs=2, metavar=("RUNTIME", "RECIPE"), help="one, as JSON")
    arguments = parser.parse_args()
    if arguments.alone:
        runtime, recipe = arguments.alone
        print(json.dumps(measure_alone(runtime, recipe, arguments.threads)))
        return
    print(conditions(arguments.threads))
    cells = [
        (runtime, recipe)
        for runtime in RUNTIMES
        for recipe in RECIPES
        if why_not(Combination(recipe, "encoder", "cpu", "safetensors"), runtime) is None
    ]
    opened = {cell: open_cell(cell, arguments.threads) for cell in cells}
    report_embeddings(opened, arguments.rounds, arguments.threads)
    report_accuracy(cells, arguments.threads)


def open_cell(
    cell: Cell, threads: int, task: str = "embeddings", source: str = ""
) -> OpenedEncoder:
    """Open one cell of the matrix."""
    where = {"task": task, "source": source} if source else {}
    return open_variant(cell[1], threads, runtime=cell[0], **where)


def report_embeddings(opened: Mapping[Cell, OpenedEncoder], rounds: int, threads: int) -> None:
    """Print a row per cell for MiniLM."""
    # SciPy, which a process that measures its own memory must not import.
    from serving.quality.agreement import cosine_similarities

    texts = sample_sentences()
    reference = answer(opened[BASE], texts)
    speeds = [measure_speed(opened, random_batch(*shape), rounds) for shape in SHAPES]
    print(f"\nMiniLM, {rounds} rounds; cosine over {NUM_SENTENCES} sentences\n")
    print(
        "| runtime | recipe | 1×32, ms (speed) | 8×128, ms (speed) | cosine, mean (smallest) | "
        "weights, MiB | on disk | resident | private | CPU to first answer, s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for cell, one in opened.items():
        times = " | ".join(f"{ms:.1f} ({ratio:.2f})" for ms, ratio in (s[cell] for s in speeds))
        cosines = cosine_similarities(answer(one, texts), reference)
        alone = run_alone(cell, threads)
        sizes = (one.engine.footprint().weights_bytes, one.artifact.size)
        memory = (alone["resident"], alone["private"])
        print(
            f"| `{cell[0]}` | `{cell[1]}` | {times} | {cosines.mean():.5f} ({cosines.min():.4f}) | "
            + " | ".join(f"{size / MIB:.1f}" for size in sizes)
            + " | "
            + " | ".join(f"{size / MIB:.0f}" for size in memory)
            + f" | {alone['cpu_s']:.1f} |",
            flush=True,
        )


def report_accuracy(cells: list[Cell], threads: int) -> None:
    """Print a row per cell for the classifier."""
    examples = read_examples(LABELLED, need_labels=True)
    texts = [str(example.input) for example in examples]
    print(f"\n`sentiment`, {len(texts):,} held-out sentences\n")
    print("| runtime | recipe | accuracy | points to fp32 | same label |")
    print("|---|---|---|---|---|")
    base: list[str] = []
    for cell in cells:
        opened = open_cell(cell, threads, "classification", CLASSIFIER)
        found = [opened.task.labels[index] for index in answer(opened, texts).argmax(1)]
        base = base or found
        accuracy, of_base = (
            np.mean([label == e.label for label, e in zip(labels, examples, strict=True)])
            for labels in (found, base)
        )
        same = np.mean([a == b for a, b in zip(found, base, strict=True)])
        print(
            f"| `{cell[0]}` | `{cell[1]}` | {accuracy:.4f} | {100 * (accuracy - of_base):+.1f} | "
            f"{same:.4f} |",
            flush=True,
        )


def measure_speed(
    opened: Mapping[Cell, OpenedEncoder], batch: Arrays, rounds: int
) -> dict[Cell, tuple[float, float]]:
    """Median ms of each cell, and how many times as fast as the base it was inside a round."""
    times: dict[Cell, list[float]] = {cell: [] for cell in opened}
    for round_ in range(rounds + 2):
        for cell, one in opened.items():
            started = time.perf_counter()
            one.engine.forward(batch)
            if round_ >= 2:
                times[cell].append(time.perf_counter() - started)
    return {
        cell: (
            statistics.median(own) * 1e3,
            statistics.median(a / b for a, b in zip(times[BASE], own, strict=True)),
        )
        for cell, own in times.items()
    }


def random_batch(rows: int, tokens: int) -> dict[str, NDArray[np.int64]]:
    """Random token ids without padding."""
    ids = np.random.default_rng(0).integers(1_000, 30_000, (rows, tokens))
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }


def run_alone(cell: Cell, threads: int) -> dict[str, float]:
    """What ``measure_alone`` finds in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.encoders", "--threads", str(threads)]
    output = subprocess.run([*command, "--alone", *cell], check=True, stdout=subprocess.PIPE).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found


def measure_alone(runtime: str, recipe: str, threads: int) -> dict[str, float]:
    """Memory in bytes after some batches, and CPU seconds from process start to first answer."""
    opened = open_cell((runtime, recipe), threads)
    opened.engine.forward(random_batch(1, 32))
    cpu_s = time.process_time()
    for shape in SHAPES:
        opened.engine.forward(random_batch(*shape))
    return {"cpu_s": cpu_s, "resident": resident_bytes(), "private": private_bytes()}


if __name__ == "__main__":
    main()
