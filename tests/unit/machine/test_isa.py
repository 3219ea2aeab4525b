from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from serving.machine.isa import (
    cpu_flags,
    instruction_set,
    limited,
    multiplies_bf16,
    multiplies_int8_exactly,
    usable_flags,
)

ROOT = Path(__file__).parents[3]

ZEN4 = frozenset({"avx2", "avx512f", "avx512_vnni", "avx512_bf16"})
SAPPHIRE_RAPIDS = ZEN4 | {"avx_vnni", "amx_tile", "amx_int8", "amx_bf16"}
SKYLAKE_SERVER = frozenset({"avx2", "avx512f"})
HASWELL = frozenset({"avx2"})
ALDER_LAKE = frozenset({"avx2", "avx_vnni"})


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (ZEN4, "avx512_vnni+avx512_bf16"),
        (SAPPHIRE_RAPIDS, "amx_int8+amx_bf16+avx512_vnni+avx512_bf16"),
        (SKYLAKE_SERVER, "avx512f"),
        (ALDER_LAKE, "avx_vnni"),
        (HASWELL, "avx2"),
        (frozenset(), platform.machine()),
    ],
)
def test_the_widest_low_precision_instructions_give_the_name(
    flags: frozenset[str], name: str
) -> None:
    assert instruction_set(flags) == name


@pytest.mark.parametrize(
    ("flags", "bf16", "int8"),
    [(ZEN4, True, True), (SKYLAKE_SERVER, False, False), (ALDER_LAKE, False, False)],
)
def test_what_the_kernels_need(flags: frozenset[str], bf16: bool, int8: bool) -> None:
    assert multiplies_bf16(flags) is bf16
    assert multiplies_int8_exactly(flags) is int8


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, "amx_int8+amx_bf16+avx512_vnni+avx512_bf16"),
        ({"ATEN_CPU_CAPABILITY": "avx512"}, "amx_int8+amx_bf16+avx512_vnni+avx512_bf16"),
        ({"ATEN_CPU_CAPABILITY": "avx2"}, "avx2"),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, "avx512_vnni+avx512_bf16"),
        ({"DNNL_MAX_CPU_ISA": "avx512_core_vnni"}, "avx512_vnni"),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2_VNNI"}, "avx_vnni"),
        ({"FBGEMM_ENABLE_INSTRUCTIONS": "AVX512"}, "avx512f"),
        ({"FBGEMM_ENABLE_INSTRUCTIONS": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, "avx2"),
    ],
)
def test_the_environment_limits_what_libraries_use(environment: dict[str, str], name: str) -> None:
    assert instruction_set(limited(SAPPHIRE_RAPIDS, environment)) == name


SATURATES = """
import torch
from serving.machine.isa import multiplies_int8_exactly
from serving.runtimes.torch.kernels import fbgemm_weights
weight, scale = torch.full((64, 512), 127, dtype=torch.int8), torch.full((64,), 0.5 / 127)
fbgemm_weights.check_weights = lambda weight: None
y = fbgemm_weights.linear_with_fixed_scale(
    torch.ones(4, 512), 1 / 127, 128, fbgemm_weights.pack(weight, scale)
)
is_exact = bool((y - 256).abs().max() < 1)
assert is_exact or not multiplies_int8_exactly(), "said to be exact, but sums saturate"
print(torch.backends.cpu.get_cpu_capability(), is_exact)
"""


@pytest.mark.skipif("avx512_vnni" not in usable_flags(), reason="there is nothing to take away")
@pytest.mark.parametrize(
    ("environment", "answer"),
    [
        ({}, "AVX512 True"),
        ({"ATEN_CPU_CAPABILITY": "avx2", "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2"}, "AVX2 False"),
        ({"FBGEMM_ENABLE_INSTRUCTIONS": "AVX512"}, "AVX512 False"),
    ],
)
def test_torch_keeps_to_the_same_variables(environment: dict[str, str], answer: str) -> None:
    child = subprocess.run(
        [sys.executable, "-c", SATURATES],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout.strip() == answer


def test_what_is_usable_is_part_of_what_there_is() -> None:
    assert usable_flags() <= cpu_flags()
