"""What a second team of kernel threads in a process costs, by how GNU OpenMP is told to wait.

Run as ``python -m benchmarks.second_team``. Each setting has a process of its own: there one thread
decodes on llama.cpp with two kernel threads, then another thread does, then the first one again.
Medians of single steps by the clock. See decision 7.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time

import numpy as np

from benchmarks.conditions import conditions
from benchmarks.demo_generators import prepare_generator
from benchmarks.llama_cpp_loop import LlamaCppLoop
from serving.app.ray_environment import KERNEL_THREADS
from serving.seams import VariantForm

SETTINGS = {
    "torch's default": {},
    "the spin count alone": {"GOMP_SPINCOUNT": KERNEL_THREADS["GOMP_SPINCOUNT"]},
    "quantserve's": KERNEL_THREADS,
}
THREADS, TOKENS = 2, 512
PROMPT, STEPS = 64, 48


def main() -> None:
    """Measure each setting in a process of its own."""
    print(conditions(THREADS))
    inherited = {key: value for key, value in os.environ.items() if key not in KERNEL_THREADS}
    for name, setting in SETTINGS.items():
        command = [sys.executable, "-m", "benchmarks.second_team", "measure"]
        ended = subprocess.run(
            command, env=inherited | setting, stdout=subprocess.PIPE, text=True, check=True
        )
        print(f"{name}: {ended.stdout.strip()}")


def measure() -> None:
    """Print a step's time of a first team, of a second one, and of the first one afterwards."""
    generator = prepare_generator("q4_0-llama.cpp", VariantForm("q4_0", "llama.cpp"), THREADS)
    loop = LlamaCppLoop(generator.artifact.weights_folder, 1, TOKENS, THREADS)
    times = [step_ms(loop)]
    second = threading.Thread(target=lambda: times.append(step_ms(loop)))
    second.start()
    second.join()
    times.append(step_ms(loop))
    print("first {:.1f} ms, second {:.1f}, the first afterwards {:.1f}".format(*times))


def step_ms(loop: LlamaCppLoop) -> float:
    """Median time of one stream's steps behind a prompt of random tokens."""
    tokens = np.random.default_rng(0).integers(100, 40_000, PROMPT)
    sequence = np.zeros(PROMPT, int)
    loop.forget_from(0)
    loop.decode(tokens, np.arange(PROMPT), sequence)
    times = []
    for position in range(PROMPT, PROMPT + STEPS):
        started = time.perf_counter()
        loop.decode(tokens[:1], np.array([position]), sequence[:1])
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


if __name__ == "__main__":
    measure() if "measure" in sys.argv else main()
