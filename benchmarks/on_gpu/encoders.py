"""An encoder in every recipe: opened from its artifact, timed, compared with fp32."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from serving.checkpoint import read_config
from serving.recipes import RECIPES
from serving.runtimes.torch.opening import open_on_gpu
from serving.runtimes.torch.preparing import prepare_encoder
from serving.seams import (
    Arrays,
    Checkpoint,
    DeviceName,
    EncoderEngine,
    OpenRequest,
    Pooled,
    PrepareRequest,
)

HEAD = Pooled()
SHAPES = {"cuda": ((1, 32), (8, 128), (64, 128)), "cpu": ((1, 8), (8, 16))}
"""Rows and tokens."""

COMPARED = {"cuda": (64, 128), "cpu": (8, 16)}
ROUNDS = {"cuda": 30, "cpu": 3}
THREADS = 8


def measure_encoders(
    checkpoint: Checkpoint, recipes: Iterable[str], device: DeviceName, root: Path
) -> None:
    """Print a row for each recipe, ``fp32`` first: the others are compared with it."""
    vocabulary = int(read_config(checkpoint)["vocab_size"])
    compared = random_batch(COMPARED[device], vocabulary, seed=1)
    shapes = [f"{rows}×{tokens}" for rows, tokens in SHAPES[device]]
    print("| recipe | load, s | MiB | cosine to fp32 (least) | " + " | ".join(shapes) + " |")
    print("|---|---|---|---|" + "---|" * len(shapes))
    reference: NDArray[np.float32] | None = None
    for recipe in recipes:
        folder = root / recipe
        folder.mkdir(parents=True)
        prepare_encoder(prepare_request(checkpoint, recipe, folder, compared))
        started = time.perf_counter()
        engine = open_on_gpu(open_request(recipe, folder, device))
        rows = engine.forward(compared)
        load_s = time.perf_counter() - started
        reference = rows if reference is None else reference
        lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(reference, axis=1)
        cosines = (rows * reference).sum(1) / lengths
        times = [
            median_s(engine, random_batch(shape, vocabulary, seed=2), ROUNDS[device])
            for shape in SHAPES[device]
        ]
        print(
            f"| `{recipe}` | {load_s:.2f} | {engine.footprint().weights_bytes / 2**20:.1f} | "
            f"{cosines.mean():.5f} ({cosines.min():.5f}) | "
            + " | ".join(f"{1e3 * seconds:.2f} ms" for seconds in times)
            + " |",
            flush=True,
        )
        del engine
        free_memory(device)


def random_batch(shape: tuple[int, int], vocabulary: int, seed: int) -> Arrays:
    """Random token ids; the last row is shorter by half."""
    rows, tokens = shape
    ids = np.random.default_rng(seed).integers(1, vocabulary, shape)
    mask = np.ones_like(ids)
    if rows > 1:
        mask[-1, tokens // 2 :] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


def prepare_request(
    checkpoint: Checkpoint, recipe: str, folder: Path, example: Arrays
) -> PrepareRequest:
    """As ``prepare`` would be asked for a GPU."""
    return PrepareRequest(
        checkpoint=checkpoint,
        recipe=recipe,
        options=RECIPES[recipe].options(),
        kind="encoder",
        head=HEAD,
        device="cuda",
        threads=THREADS,
        example={name: array[-3:] for name, array in example.items()},
        calibration=(),
        folder=folder,
    )


def open_request(recipe: str, folder: Path, device: DeviceName) -> OpenRequest:
    return OpenRequest(
        folder=folder,
        recipe=recipe,
        options=RECIPES[recipe].options(),
        head=HEAD,
        device=device,
        threads=THREADS,
    )


def median_s(engine: EncoderEngine, batch: Arrays, rounds: int) -> float:
    """Median seconds of a pass, its rows back on the CPU; two passes warm."""
    times = []
    for _ in range(rounds + 2):
        started = time.perf_counter()
        engine.forward(batch)
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])


def free_memory(device: DeviceName) -> None:
    """Let go of what the last engine held."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
