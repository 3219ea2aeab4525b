"""Which of the CPU's instructions decide how fast, and how exactly, a variant runs.

Environment variables can keep libraries from instructions that the CPU has, to reproduce what
another machine answers or to test for it. Each library has its own, and a model runs on several
libraries: what counts here is what all of them may use.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

MATRIX_FLAGS = ("amx_int8", "amx_bf16", "avx512_vnni", "avx512_bf16", "avx_vnni")
VECTOR_FLAGS = ("avx512f", "avx2")

_AVX512 = frozenset({"avx512f"})
_AVX512_INT8 = _AVX512 | {"avx512_vnni"}
_AVX512_BF16 = _AVX512_INT8 | {"avx512_bf16", "avx_vnni"}
_NOTHING: frozenset[str] = frozenset()

_ONEDNN = {
    "SSE41": _NOTHING,
    "AVX": _NOTHING,
    "AVX2": _NOTHING,
    "AVX2_VNNI": frozenset({"avx_vnni"}),
    "AVX2_VNNI_2": frozenset({"avx_vnni"}),
    "AVX512_CORE": _AVX512,
    "AVX512_CORE_VNNI": _AVX512_INT8,
    "AVX512_CORE_BF16": _AVX512_BF16,
    "AVX512_CORE_FP16": _AVX512_BF16,
}

LIMITS: Mapping[str, Mapping[str, frozenset[str]]] = {
    "ATEN_CPU_CAPABILITY": {"DEFAULT": _NOTHING, "AVX2": _NOTHING},
    "FBGEMM_ENABLE_INSTRUCTIONS": {
        "AVX2": _NOTHING,
        "AVX512": _AVX512,
        "AVX512_256": _AVX512,
    },
    "ONEDNN_MAX_CPU_ISA": _ONEDNN,
    "DNNL_MAX_CPU_ISA": _ONEDNN,
}
"""By environment variable and value: the flags beyond AVX2 that the library then still uses.

Of other values, and where a variable is not set, it uses all.
"""


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


def limited(flags: frozenset[str], environment: Mapping[str, str]) -> frozenset[str]:
    """Leave out of ``flags`` what variables of ``environment`` keep libraries from using."""
    limitable = frozenset({*MATRIX_FLAGS, *VECTOR_FLAGS}) - {"avx2"}
    for variable, values in LIMITS.items():
        kept = values.get(environment.get(variable, "").upper())
        if kept is not None:
            flags -= limitable - kept
    return flags


@cache
def usable_flags() -> frozenset[str]:
    """Return the flags of this CPU that libraries may use.

    Read once: the libraries look at their variables once, too, when they are loaded.
    """
    return limited(cpu_flags(), os.environ)


def instruction_set(flags: frozenset[str] | None = None) -> str:
    """Name the widest low-precision instructions, e.g. ``avx512_vnni+avx512_bf16`` or ``avx2``.

    Args:
        flags: Feature flags of a CPU; by default the usable ones of this.
    """
    flags = usable_flags() if flags is None else flags
    matrix = [flag for flag in MATRIX_FLAGS if flag in flags]
    if "avx512_vnni" in matrix and "avx_vnni" in matrix:
        matrix.remove("avx_vnni")
    vector = [flag for flag in VECTOR_FLAGS if flag in flags]
    return "+".join(matrix) or (vector[0] if vector else platform.machine())


def multiplies_bf16(flags: frozenset[str] | None = None) -> bool:
    """Whether the CPU multiplies bfloat16 natively; without that, bf16 kernels lose to fp32 ones.

    Args:
        flags: Feature flags of a CPU; by default the usable ones of this.
    """
    flags = usable_flags() if flags is None else flags
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def multiplies_int8_exactly(flags: frozenset[str] | None = None) -> bool:
    """Whether products of unsigned and signed 8-bit numbers are summed without saturating.

    Args:
        flags: Feature flags of a CPU; by default the usable ones of this.
    """
    flags = usable_flags() if flags is None else flags
    return "avx512_vnni" in flags
