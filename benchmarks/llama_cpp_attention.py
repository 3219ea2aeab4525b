"""What llama.cpp's fused attention costs and keeps, and what the order of sequences costs.

Run as ``python -m benchmarks.llama_cpp_attention``. Times are processor time of one step on one
thread, so other work beside it disturbs little; ratios are medians over steps in turns. Closeness
is that of ``f16`` to our decoder in torch's ``fp32``, by the logits after a long prompt. Random
tokens for the times, film reviews for the logits.
"""

from __future__ import annotations

import os

from serving.app.ray_environment import KERNEL_THREADS

# As the service sets it, and before torch loads OpenMP.
os.environ.update(KERNEL_THREADS)

import argparse
import statistics
import time
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from benchmarks.conditions import conditions
from benchmarks.demo_generators import MAX_RUNNING, MAX_TOKENS, DemoGenerator, prepare_generator
from benchmarks.demo_variants import REVIEWS
from benchmarks.llama_cpp_loop import LlamaCppLoop
from serving.runtimes.llamacpp.library import NOT_FUSED
from serving.seams import Segment, VariantForm

FUSED = 1
CONTEXTS = (64, 128, 256, 512, 1_000)
STREAMS = (1, MAX_RUNNING)
STEPS = 6
PIECE = 64
COMPARED = 40
"""Last tokens of the long prompt whose logits are compared, one by one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="q4_0", help="whose steps are timed")
    recipe = parser.parse_args().recipe
    print(conditions(1))
    timed = prepare_generator(f"{recipe}-llama.cpp", VariantForm(recipe, "llama.cpp"), 1)
    report_times(open_loops(timed))
    report_order(open_loops(timed)["not fused"])
    exact = prepare_generator("fp32", VariantForm("fp32", "torch"), 1)
    close = prepare_generator("f16-llama.cpp", VariantForm("f16", "llama.cpp"), 1)
    report_closeness(exact, close)


def open_loops(generator: DemoGenerator) -> dict[str, LlamaCppLoop]:
    folder = generator.artifact.weights_folder
    return {
        name: LlamaCppLoop(folder, MAX_RUNNING, MAX_TOKENS, 1, attention)
        for name, attention in (("not fused", NOT_FUSED), ("fused", FUSED))
    }


def report_times(loops: dict[str, LlamaCppLoop]) -> None:
    """Print a step's time by how many tokens the sequences have."""
    for before, context in pairwise((0, *CONTEXTS)):
        for loop in loops.values():
            for sequence in range(MAX_RUNNING):
                for start in range(before, context, PIECE):
                    step(loop, [sequence] * min(PIECE, context - start), start)
        for streams in STREAMS:
            times: dict[str, list[float]] = {name: [] for name in loops}
            for _ in range(STEPS):
                for name, loop in loops.items():
                    times[name].append(step(loop, range(streams), context))
                    loop.forget_from(context)
            shown = ", ".join(f"{name} {ms(times[name]):.1f} ms" for name in loops)
            pairs = zip(times["not fused"], times["fused"], strict=True)
            ratio = statistics.median(a / b for a, b in pairs)
            print(f"{context} tokens, {streams} streams: {shown}; not fused over fused {ratio:.2f}")


def report_order(loop: LlamaCppLoop) -> None:
    """Print a step's time of eight sequences in ascending and in descending order."""
    for sequence in range(MAX_RUNNING):
        step(loop, [sequence] * PIECE, 0)
    orders = {"ascending": range(MAX_RUNNING), "descending": range(MAX_RUNNING)[::-1]}
    times: dict[str, list[float]] = {name: [] for name in orders}
    for _ in range(STEPS):
        for name, order in orders.items():
            times[name].append(step(loop, order, PIECE))
            loop.forget_from(PIECE)
    print(", ".join(f"{name} order {ms(times[name]):.1f} ms" for name in orders))


def step(loop: LlamaCppLoop, sequences: Sequence[int], start: int) -> float:
    """Seconds of processor time of a step; of one sequence, its tokens are consecutive."""
    places = np.array(sequences)
    is_piece = len({*sequences}) == 1
    positions = start + np.arange(len(places)) if is_piece else np.full(len(places), start)
    tokens = np.random.default_rng(start).integers(100, 40_000, len(places))
    began = time.process_time()
    loop.decode(tokens, positions, places)
    return time.process_time() - began


def ms(times: Sequence[float]) -> float:
    return statistics.median(times) * 1e3


def report_closeness(exact: DemoGenerator, close: DemoGenerator) -> None:
    """Print how far logits are from those of float32, after a long prompt."""
    text = REVIEWS.read_text(encoding="utf-8").replace("\t", " ")[: 8 * max(CONTEXTS)]
    ids = exact.open_task(MAX_TOKENS * 4).encode_prompt(text)[: max(CONTEXTS)]
    decoder = exact.open_decoder()
    assert decoder is not None
    expected = decoder.step([Segment(0, 0, ids, COMPARED)])
    first = len(ids) - COMPARED
    for name, loop in open_loops(close).items():
        loop.decode(np.array(ids[:first]), np.arange(first), np.zeros(first, int))
        rows = [
            loop.decode(np.array([ids[at]]), np.array([at]), np.zeros(1, int))[0].copy()
            for at in range(first, len(ids))
        ]
        change = np.linalg.norm(rows - expected, axis=1) / np.linalg.norm(expected, axis=1)
        print(f"{name}: logits change by {np.median(change):.2%}, at most {change.max():.2%}")


if __name__ == "__main__":
    main()
