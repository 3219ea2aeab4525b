"""What prompts of every length make a generator's process keep.

Run as ``python -m benchmarks.prompt_lengths RECIPE`` after ``python -m serving.demo.prepare``. It
opens SmolLM2 on torch and has it read random prompts of 1 to 1,000 tokens (as many short ones as
long ones, on a logarithmic scale), each in one of eight slots with three steps after it. Every
twenty prompts it prints CPU seconds, anonymous memory, what malloc says is in use, and the tokens
that the slots hold. ``--kernels`` bounds oneDNN's and torch's caches otherwise than the service.
"""

from __future__ import annotations

import os

from serving.app.ray_environment import KERNEL_THREADS

# As the service sets it for its replicas, and before torch loads OpenMP.
os.environ.update(KERNEL_THREADS)

import argparse
import ctypes
import time

import numpy as np

from benchmarks.conditions import conditions
from benchmarks.demo_generators import MAX_RUNNING, prepare_generator
from serving.machine.process_memory import private_bytes
from serving.runtimes.torch.decoder.kept_kernels import CACHES
from serving.seams import Segment, VariantForm

LONGEST = 1_000
CHUNK = 512
STEPS = 3
REPORT_EVERY = 20
SEED = 0


class Allocations(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--prompts", type=int, default=80)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kernels", type=int, help="of each cache; as in the service if not given")
    given = parser.parse_args()
    if given.kernels is not None:
        os.environ.update(dict.fromkeys(CACHES, str(given.kernels)))
    print(conditions(given.threads), flush=True)
    form = VariantForm(given.recipe, "torch")
    decoder = prepare_generator(given.recipe, form, given.threads).open_decoder()
    assert decoder is not None  # torch has one
    held = [0] * MAX_RUNNING
    random = np.random.default_rng(SEED)
    print("\n| prompts | CPU s | private MiB | in use of malloc | tokens in slots |")
    print("|---|---|---|---|---|")
    print(row(0, held), flush=True)
    for number in range(1, given.prompts + 1):
        slot = int(random.integers(MAX_RUNNING))
        length = int(np.exp(random.uniform(0, np.log(LONGEST)))) + 1
        tokens = tuple(int(token) for token in random.integers(1_000, 40_000, size=length))
        for start in range(0, length, CHUNK):
            part = tokens[start : start + CHUNK]
            decoder.step([Segment(slot, start, part, int(start + CHUNK >= length))])
        for step in range(STEPS):
            decoder.step([Segment(slot, length + step, tokens[:1], 1)])
        held[slot] = length + STEPS
        if number % REPORT_EVERY == 0:
            print(row(number, held), flush=True)


def row(prompts: int, held: list[int]) -> str:
    """What the process has by now."""
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = Allocations
    in_use = libc.mallinfo2().uordblks
    return (
        f"| {prompts} | {time.process_time():.0f} | {private_bytes() / 2**20:.0f} "
        f"| {in_use / 2**20:.0f} | {sum(held)} |"
    )


if __name__ == "__main__":
    main()
