"""The kernel's books, read while something runs."""

from __future__ import annotations

import pytest

from serving.machine.cpu_use import CpuUse, cores_of_others, read_cpu_use


def test_readings_grow() -> None:
    before = read_cpu_use()
    while (after := read_cpu_use()).own <= before.own:
        pass
    assert after.at > before.at
    assert after.machine >= before.machine


@pytest.mark.parametrize(
    ("machine_s", "own_s", "expected"),
    [(2.0, 0.0, 1.0), (2.0, 2.0, 0.0), (3.0, 1.0, 1.0), (1.0, 1.01, 0.0)],
)
def test_what_others_kept_busy_is_what_this_process_did_not(machine_s, own_s, expected) -> None:
    before, after = CpuUse(5.0, 100.0, 10.0), CpuUse(7.0, 100.0 + machine_s, 10.0 + own_s)
    assert cores_of_others(before, after) == pytest.approx(expected)
