"""Which CPU a graph is compiled for."""

from __future__ import annotations

from collections.abc import Mapping

from serving.machine.isa import cpu_flags

FLAGS = ("avx2", "fma", "f16c", "bmi1", "bmi2", "movbe", "abm")
"""What ``x86-64-v3`` of the System V ABI has beside AVX, as the kernel names it."""


def target_here() -> tuple[Mapping[str, str], tuple[str, ...]]:
    """TVM's words for this machine's CPU, and the flags that the code will need."""
    if cpu_flags().issuperset(FLAGS):
        return {"kind": "llvm", "mcpu": "x86-64-v3"}, FLAGS
    return {"kind": "llvm"}, ()
