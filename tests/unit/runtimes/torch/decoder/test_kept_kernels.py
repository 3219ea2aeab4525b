"""Inputs of every number of rows do not make a decoder's process grow."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from serving.runtimes.torch.decoder.kept_kernels import CACHES

GROWTH = """
import ctypes, json, sys
import torch
from serving.runtimes.torch.decoder.kept_kernels import bound_kept_kernels
from serving.runtimes.torch.kernels.prepacked_linear import PrepackedLinear

class Allocations(ctypes.Structure):
    _fields_ = [(str(place), ctypes.c_size_t) for place in range(10)]  # the eighth: in use

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Allocations
if sys.argv[1] == "bounded":
    bound_kept_kernels(max_running=8)
layer = PrepackedLinear(torch.zeros(48, 64))
used = []
for rows in range(1, 601):
    layer.forward(torch.zeros(rows, 64))
    if rows % 200 == 0:
        used.append(getattr(libc.mallinfo2(), "7"))
print(json.dumps(used))
"""
MIB = 2**20


def growth(way: str) -> int:
    """Bytes in use after 600 numbers of rows beyond those after 200."""
    environment = {name: value for name, value in os.environ.items() if name not in CACHES}
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, way],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    first, _, last = json.loads(done.stdout)
    return int(last - first)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc tells what is in use")
def test_kernels_of_former_prompts_are_let_go() -> None:
    assert growth("bounded") < 2 * MIB
    # Else nothing would have been bounded.
    assert growth("unbounded") > 10 * MIB
