"""Which of the CPU's instructions decide how fast, and how exactly, a variant runs."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

MATRIX_FLAGS = ("amx_int8", "amx_bf16", "avx512_vnni", "avx512_bf16", "avx_vnni")
VECTOR_FLAGS = ("avx512f", "avx2")


@cache
def cpu_flags() -> frozenset[str]:
    """Return the kernel's feature flags of this CPU; empty where there is no ``/proc/cpuinfo``."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    # x86 says "flags", Arm says "Features".
    listed = [line for line in lines if line.startswith(("flags", "Features"))]
    return frozenset(listed[0].partition(":")[2].split()) if listed else frozenset()


def instruction_set(flags: frozenset[str] | None = None) -> str:
    """Name the widest low-precision instructions, e.g. ``avx512_vnni+avx512_bf16`` or ``avx2``.

    Args:
        flags: The CPU's feature flags; by default those of this CPU.
    """
    flags = cpu_flags() if flags is None else flags
    matrix = [flag for flag in MATRIX_FLAGS if flag in flags]
    if "avx512_vnni" in matrix and "avx_vnni" in matrix:
        matrix.remove("avx_vnni")
    vector = [flag for flag in VECTOR_FLAGS if flag in flags]
    return "+".join(matrix) or (vector[0] if vector else platform.machine())


def multiplies_bf16(flags: frozenset[str] | None = None) -> bool:
    """Whether the CPU multiplies bfloat16 natively; without that, bf16 kernels lose to fp32 ones.

    Args:
        flags: The CPU's feature flags; by default those of this CPU.
    """
    flags = cpu_flags() if flags is None else flags
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def multiplies_int8_exactly(flags: frozenset[str] | None = None) -> bool:
    """Whether products of unsigned and signed 8-bit numbers are summed without saturating.

    Args:
        flags: The CPU's feature flags; by default those of this CPU.
    """
    flags = cpu_flags() if flags is None else flags
    return "avx512_vnni" in flags
