"""A linear layer whose weight is expanded at each pass, beside float32 and torch's 4-bit kernel.

Run as ``python -m benchmarks.expanding``. Each way takes its turn; the shortest time of each
counts, since whatever else runs on the machine can only make one longer.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.conditions import conditions
from serving.runtimes.torch.conversions.expanded_layers import compute_dtype
from serving.runtimes.torch.kernels.fp8_linear import Fp8Linear
from serving.runtimes.torch.kernels.half_stored import F16StoredLinear
from serving.runtimes.torch.kernels.int4_linear import Int4Linear
from serving.runtimes.torch.kernels.nf4_codes import LEVELS, nearest_codes
from serving.runtimes.torch.kernels.nf4_linear import Nf4Linear
from serving.runtimes.torch.kernels.prepacked_linear import PrepackedLinear

ROUNDS = 30
Run = Callable[[], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outputs", type=int, default=1_536)
    parser.add_argument("--inputs", type=int, default=576)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(conditions(arguments.threads))
    torch.manual_seed(0)
    linear = nn.Linear(arguments.inputs, arguments.outputs, bias=False).requires_grad_(False)
    print(f"\nms to expand {arguments.outputs:,} × {arguments.inputs:,}: ", end="")
    expanding = shortest(ways_to_expand(linear))
    print(", ".join(f"{name} {seconds * 1e3:.2f}" for name, seconds in expanding.items()))
    layers = layers_of(linear)
    print(f"\n| rows | {' | '.join(layers)} |\n|{'---|' * (len(layers) + 1)}")
    for rows in arguments.rows:
        x = torch.randn(rows, arguments.inputs)
        times = shortest({name: _multiply(layer, x) for name, layer in layers.items()})
        cells = " | ".join(f"{seconds * 1e3:.2f}" for seconds in times.values())
        print(f"| {rows} | {cells} |", flush=True)


def layers_of(linear: nn.Linear) -> Mapping[str, nn.Module]:
    """The layer in each form, by its recipe."""
    dtype, alike = compute_dtype(), torch.ones(linear.in_features)
    return {
        "fp32": PrepackedLinear.of(linear),
        "f16": F16StoredLinear.of(linear),
        "fp8": Fp8Linear.of(linear, dtype),
        "nf4": Nf4Linear.of(linear, 64, dtype),
        "int4": Int4Linear.of(linear, alike, 64, dtype),
    }


def ways_to_expand(linear: nn.Linear) -> Mapping[str, Run]:
    """What the layers do, and what torch has for the same."""
    dtype = compute_dtype()
    fp8, nf4 = Fp8Linear.of(linear, dtype), Nf4Linear.of(linear, 64, dtype)
    codes, levels = nearest_codes(linear.weight, 64)[0], torch.tensor(LEVELS, dtype=dtype)
    half, scale = linear.weight.half(), fp8.scale.unsqueeze(1).to(dtype)
    return {
        "f16": half.float,
        "fp8": fp8.expand,
        "fp8 by torch": lambda: fp8.weight.to(dtype) * scale,
        "nf4": nf4.expand,
        "nf4, a look-up a number": lambda: levels[codes.int()],
        "nf4, embedding": lambda: functional.embedding(codes.int(), levels.unsqueeze(1)),
    }


def _multiply(layer: nn.Module, x: Tensor) -> Run:
    dtype = getattr(layer, "dtype", torch.float32)
    rows = x.to(dtype)
    return lambda: layer(rows)


def shortest(ways: Mapping[str, Run]) -> dict[str, float]:
    """Seconds of the shortest run of each, in turns."""
    times = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            times[name] = min(times[name], time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main()
