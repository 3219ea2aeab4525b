"""A variant that is slower than its reference says so, by what was measured of both."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.artifacts import Artifact
from serving.artifacts.pass_times import write_pass_times
from serving.artifacts.slowness import slowness


def artifact(folder: Path, name: str) -> Artifact:
    return Artifact(folder / name, manifest=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        # On two threads, which save a twentieth and more.
        ({1: 0.100, 2: 0.0552}, "a pass takes 55.2 ms, one of fp32 12.1 ms"),
        # On one, which is as good.
        ({1: 0.0552, 2: 0.0550}, "a pass takes 55.2 ms, one of fp32 12.1 ms"),
        ({1: 0.0130, 2: 0.0130}, None),
        ({1: 0.0010, 2: 0.0010}, None),
    ],
)
def test_times_on_as_many_threads_as_each_takes_are_compared(
    tmp_path: Path, own: dict[int, float], expected: str | None
) -> None:
    slow, exact = artifact(tmp_path, "01"), artifact(tmp_path, "02")
    write_pass_times(slow, own)
    write_pass_times(exact, {1: 0.0121, 2: 0.0120})
    found = slowness(slow, exact, "fp32")
    assert found == (expected and f"slower than fp32 on this CPU: {expected}")


def test_what_was_not_measured_is_not_compared(tmp_path: Path) -> None:
    slow, exact = artifact(tmp_path, "01"), artifact(tmp_path, "02")
    assert slowness(slow, exact, "fp32") is None
    write_pass_times(slow, {1: 1.0})
    assert slowness(slow, exact, "fp32") is None


def test_passes_with_a_draft_are_others_than_those_without(tmp_path: Path) -> None:
    slow, exact, draft = (artifact(tmp_path, name) for name in ("01", "02", "03"))
    write_pass_times(exact, {1: 0.1})
    write_pass_times(slow, {1: 0.3})
    assert slowness(slow, exact, "fp32", draft) is None
    write_pass_times(slow, {1: 0.2}, draft)
    assert "takes 200.0 ms, one of fp32 100.0 ms" in str(slowness(slow, exact, "fp32", draft))
