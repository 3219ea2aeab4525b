"""Every recipe that torch has on CUDA: load, agreement with fp32, bytes, speed, beside peers.

Run as ``python -m benchmarks.on_gpu``. It needs torch, transformers, numpy, pydantic, psutil and
safetensors, and no Ray or network: without ``--encoder`` and ``--generator``, folders of
checkpoints, it makes models of random weights, whose agreement says how exact the numbers are and
nothing of texts. What ``--minutes`` leave no time for is left out, and named. ``--device cpu`` runs
the same on tiny models, in each operation's form for the CPU: its speeds mean nothing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.conditions import conditions
from benchmarks.on_gpu.checkpoints import random_encoder, random_generator
from benchmarks.on_gpu.encoders import measure_encoders
from benchmarks.on_gpu.generators import measure_generators
from benchmarks.on_gpu.peers import measure_generate, measure_vllm
from serving.recipes import RECIPES
from serving.runtimes.torch.conversions import CONVERSIONS
from serving.runtimes.torch.runtime import why_not
from serving.seams import Checkpoint, Combination, DeviceName, EngineKind

THREADS = 8


class Clock:
    """How much time is left.

    Args:
        minutes: In all.
    """

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    def has_time(self, what: str) -> bool:
        """Whether there is any left; says that ``what`` is left out if not."""
        if time.monotonic() < self._end:
            return True
        print(f"left out, for lack of time: {what}", flush=True)
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--encoder", type=Path, help="a checkpoint of an encoder")
    parser.add_argument("--generator", type=Path, help="a checkpoint of a generator")
    arguments = parser.parse_args()
    device: DeviceName = arguments.device
    clock = Clock(arguments.minutes)
    print(f"{device_words(device)}; {conditions(THREADS)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        encoder = arguments.encoder or random_encoder(Path(folder, "encoder"), device)
        print(f"\nencoder: {arguments.encoder or 'random weights'}", flush=True)
        recipes = possible("encoder", clock)
        measure_encoders(Checkpoint(encoder), recipes, device, Path(folder, "encoders"))
        generator = arguments.generator or random_generator(Path(folder, "generator"), device)
        print(f"\ngenerator: {arguments.generator or 'random weights'}", flush=True)
        recipes = possible("generator", clock)
        measure_generators(Checkpoint(generator), recipes, device, Path(folder, "generators"))
        if clock.has_time("generate of transformers"):
            measure_generate(generator, device)
        if clock.has_time("vLLM"):
            measure_vllm(generator, device)


def device_words(device: DeviceName) -> str:
    """The card, its memory and its capability, or that there is none."""
    if device == "cpu":
        return "a CPU in the place of a GPU"
    card = torch.cuda.get_device_properties(0)
    return (
        f"{card.name}, {card.total_memory / 2**30:.0f} GiB, compute capability "
        f"{card.major}.{card.minor}, CUDA {torch.version.cuda}"
    )


def possible(kind: EngineKind, clock: Clock) -> Iterator[str]:
    """Recipes that have a form for GPUs, as long as there is time, ``fp32`` first."""
    for recipe in CONVERSIONS:
        if recipe not in RECIPES or CONVERSIONS[recipe].move_to_gpu is None:
            continue
        if (reason := why_not(Combination(recipe, kind, "cuda", "safetensors"))) is not None:
            print(f"left out: {recipe}: {reason}", flush=True)
        elif clock.has_time(f"{recipe} of the {kind}"):
            yield recipe


if __name__ == "__main__":
    main()
