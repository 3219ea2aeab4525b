"""Faults are done to real processes, and undone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.chaos.faults import EndedByOperator, Freeze, Kill, Misbehave, Together, Victim, find

TITLE = "a-process-to-be-wronged"
WAIT_S = 30


@pytest.fixture
def child() -> Iterator[psutil.Process]:
    command = [sys.executable, "-c", "import time; time.sleep(600)", TITLE]
    with subprocess.Popen(command) as process:
        yield psutil.Process(process.pid)
        process.kill()


@pytest.fixture
def victim(child: psutil.Process, tmp_path: Path) -> Victim:
    return Victim(psutil.Process(), tmp_path / "conduct", None)


def wait_for(process: psutil.Process, *statuses: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while process.status() not in statuses:
        assert time.monotonic() < deadline, process.status()
        time.sleep(0.01)


def test_who_is_killed_is_found_by_the_title(child: psutil.Process, victim: Victim) -> None:
    assert find(victim, TITLE) == [child]
    Kill(TITLE).begin(victim)
    wait_for(child, psutil.STATUS_ZOMBIE)


def test_of_several_so_many_are_killed_as_were_asked_for(
    child: psutil.Process, victim: Victim
) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)", TITLE]
    with subprocess.Popen(command) as other:
        Kill(TITLE, most=1).begin(victim)
        both = (child, psutil.Process(other.pid))
        deadline = time.monotonic() + WAIT_S
        while all(one.status() != psutil.STATUS_ZOMBIE for one in both):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert len(find(victim, TITLE)) == 1
        other.kill()


def test_who_is_not_there_cannot_be_killed(victim: Victim) -> None:
    with pytest.raises(RuntimeError, match="another title"):
        Kill("another title").begin(victim)


def test_who_is_stopped_goes_on_in_the_end(child: psutil.Process, victim: Victim) -> None:
    fault = Freeze(TITLE)
    fault.begin(victim)
    wait_for(child, psutil.STATUS_STOPPED)
    fault.end(victim)
    wait_for(child, psutil.STATUS_SLEEPING, psutil.STATUS_RUNNING)


def test_who_an_operator_ends_lives_until_the_end(child: psutil.Process, victim: Victim) -> None:
    fault = EndedByOperator(TITLE)
    fault.begin(victim)
    assert child.status() != psutil.STATUS_ZOMBIE
    fault.end(victim)
    wait_for(child, psutil.STATUS_ZOMBIE)


def test_faults_together_begin_and_end_all(child: psutil.Process, victim: Victim) -> None:
    fault = Together((Misbehave("hang"), Freeze(TITLE)))
    fault.begin(victim)
    wait_for(child, psutil.STATUS_STOPPED)
    assert victim.conduct.read_text() == "hang"
    fault.end(victim)
    wait_for(child, psutil.STATUS_SLEEPING, psutil.STATUS_RUNNING)
    assert victim.conduct.read_text() == ""
