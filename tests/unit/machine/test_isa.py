from __future__ import annotations

import platform

import pytest

from serving.machine.isa import instruction_set, multiplies_bf16, multiplies_int8_exactly

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
