"""What it costs to expand one layer of a checkpoint of codebooks (QuIP#, AQLM) to float32.

Run as ``python -m benchmarks.codebook_layers``. Codes are random, which costs as much as others.
Each form is expanded in a process of its own, whose peak of memory is told beside the layer's own
float32 numbers; the shortest of five times counts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.conditions import conditions
from serving.quantized_checkpoints.forms import FORMS

ROUNDS = 5
QUIP = {"E8P12": (2, 7), "E8P12RVQ3B": (3, 18), "E8P12RVQ4B": (4, 17)}
"""Bits and ``codebook_id`` of QuIP#'s codebooks."""

AQLM = {"1 of 16 bits": (1, 16), "2 of 8 bits": (2, 8)}
"""Codebooks and their bits, each row for 8 inputs, that AQLM's own checkpoints have."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outputs", type=int, default=4_096)
    parser.add_argument("--inputs", type=int, default=11_008)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    print(conditions(arguments.threads))
    size = arguments.outputs, arguments.inputs
    print(f"\n{size[0]:,} × {size[1]:,}: {4 * size[0] * size[1] / 2**20:.0f} MiB in float32\n")
    print("| form | codebook | MiB stored | s | MiB in memory, at most |\n|---|---|---|---|---|")
    for form, names in (("quip-sharp", QUIP), ("aqlm", AQLM)):
        for name in names:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                row = pool.apply(measure, (form, name, *size, arguments.threads))
            print(f"| {form} | {name} | {' | '.join(row)} |", flush=True)


def measure(form: str, name: str, outputs: int, inputs: int, threads: int) -> tuple[str, ...]:
    """MiB stored, seconds of the shortest run, and MiB that the process grew by, as text."""
    torch.set_num_threads(threads)
    parts, said = (quip if form == "quip-sharp" else aqlm)(name, outputs, inputs)
    stored = sum(part.nbytes for part in parts.values())
    before, shortest = _peak(), float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        FORMS[form].read(parts, said)
        shortest = min(shortest, time.perf_counter() - start)
    return f"{stored / 2**20:.0f}", f"{shortest:.2f}", f"{_peak() - before:.0f}"


def quip(name: str, outputs: int, inputs: int) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    """Parts of a layer, and what a configuration says of it."""
    bits, number = QUIP[name]
    size = outputs, inputs // 64 * bits
    parts = {
        "Qidxs": torch.randint(-(2**63), 2**63 - 1, size),
        "codebook_id": torch.tensor(number),
        "SU": torch.ones(inputs).half(),
        "SV": torch.ones(outputs).half(),
        "Wscale": torch.tensor(1.0).half(),
    }
    return parts, {"codebook": name}


def aqlm(name: str, outputs: int, inputs: int) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    """Parts of a layer, and what a configuration says of it."""
    count, bits = AQLM[name]
    largest = 2 ** (bits - 1)
    dtype = torch.int8 if bits == 8 else torch.int16
    parts = {
        "codes": torch.randint(-largest, largest, (outputs, inputs // 8, count), dtype=dtype),
        "codebooks": torch.randn(count, 2**bits, 1, 8).half(),
        "scales": torch.ones(outputs, 1, 1, 1).half(),
    }
    said = {
        **{"num_codebooks": count, "nbits_per_codebook": bits},
        **{"out_group_size": 1, "in_group_size": 8},
    }
    return parts, said


def _peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    main()
