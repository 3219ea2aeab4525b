"""Turns among real processes: the kernel's locks are the mechanism."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from serving.cores import turn as turn_module
from serving.cores.turn import CoreTurn

DEAD_AFTER_S = 30
"""Far above what anything here takes."""


@pytest.fixture
def join(tmp_path) -> Iterator[Any]:
    joined: list[CoreTurn] = []

    def join(most: int = 2) -> CoreTurn:
        joined.append(CoreTurn(most, (3, 5), tmp_path))
        return joined[-1]

    yield join
    for turn in joined:
        turn.close()


class Member:
    """A process that takes turns."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.cores.member", str(folder), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def result(self) -> dict[str, list[float]]:
        found: dict[str, list[float]] = json.loads(self.line())
        return found


@contextmanager
def members(count: int, folder: Path, *options: str) -> Iterator[list[Member]]:
    started = [Member(folder, *options) for _ in range(count)]
    try:
        yield started
    finally:
        for member in started:
            member.process.kill()
            member.process.communicate()


@pytest.mark.parametrize("most", [1, 2])
def test_who_is_alone_has_every_core_up_to_its_most(join, most) -> None:
    assert join(most).take() == (3, 5)[:most]


def test_a_second_one_gets_a_core_once_the_first_asks_again(join) -> None:
    first, second = join(), join()
    assert first.take() == (3, 5)
    got: list[tuple[int, ...]] = []
    waiting = threading.Thread(target=lambda: got.append(second.take()))
    waiting.start()
    wait_until(second._members.others_are_active)
    wait_until(first._members.others_wait)
    assert first.take() == (3,)
    waiting.join(DEAD_AFTER_S)
    assert got == [(5,)]


def test_cores_come_back_only_some_time_after_the_other_has_ended(join, monkeypatch) -> None:
    first, second = join(), join()
    second.take()
    assert len(first_gets_beside(first, second)) == 1
    second.give_back()
    assert len(first.take()) == 1  # the other may be back at once
    wait_until(lambda: len(first.take()) == 2)


def test_background_work_waits_for_others_but_not_for_ever(join, monkeypatch) -> None:
    monkeypatch.setattr(turn_module, "BACKGROUND_BOUND_S", 0.3)
    busy, quiet = join(1), join(1)
    busy.take()
    asked = time.monotonic()
    assert quiet.take(background=True) == (5,)
    assert time.monotonic() - asked >= 0.3


def test_background_work_waits_no_more_once_somebody_waits_for_the_replica(
    join, monkeypatch
) -> None:
    monkeypatch.setattr(turn_module, "BACKGROUND_BOUND_S", 10 * DEAD_AFTER_S)
    busy, quiet = join(1), join(1)
    busy.take()
    got: list[tuple[int, ...]] = []
    waiting = threading.Thread(target=lambda: got.append(quiet.take(background=True)), daemon=True)
    waiting.start()
    quiet.hurry()
    waiting.join(DEAD_AFTER_S)
    assert got == [(5,)]


def test_who_goes_on_in_the_background_counts_as_active_no_more(join) -> None:
    mine, other = join(1), join(1)
    mine.take()
    assert other.others_are_active()
    mine.take(background=True)
    wait_until(lambda: not other.others_are_active())


def test_background_work_counts_as_no_work_for_others(join) -> None:
    quiet, other = join(1), join(1)
    quiet.take(background=True)
    assert not other.others_are_active()
    assert other.take() == (5,)


def test_nothing_is_lost_with_a_holder_that_is_killed(tmp_path, join) -> None:
    with members(1, tmp_path, "--turns", "1", "--hang") as (holder,):
        holder.go()
        assert holder.line() == "holds"
        got: list[tuple[int, ...]] = []
        mine = join()
        waiting = threading.Thread(target=lambda: got.append(mine.take()))
        waiting.start()
        wait_until(lambda: mine._members.active() != [])
        assert got == []
        holder.process.kill()
        waiting.join(DEAD_AFTER_S)
        assert got[0]
        wait_until(lambda: len(mine.take()) == 2)


def test_a_waiter_that_is_killed_holds_nobody_up(tmp_path, join) -> None:
    mine, third = join(), join(1)
    mine.take()
    with members(1, tmp_path, "--turns", "1") as (waiter,):
        waiter.go()
        wait_until(mine._members.others_wait)
        waiter.process.kill()
        waiter.process.wait()
        assert not mine._members.others_wait()
        mine.give_back()
        assert third.take() == (3,)


def test_one_that_hangs_holds_nobody_up_for_long(join, monkeypatch, caplog) -> None:
    monkeypatch.setattr(turn_module, "PATIENCE_S", 0.3)
    # Ray's own passes nothing on once Serve has configured it.
    monkeypatch.setattr(turn_module, "logger", logging.getLogger("turns"))
    hanging, mine = join(), join()
    assert hanging.take() == (3, 5)
    asked = time.monotonic()
    with caplog.at_level("WARNING"):
        assert mine.take() == (3,)
        first = time.monotonic() - asked
        # Not as long at each pass.
        monkeypatch.setattr(turn_module, "PATIENCE_S", 10 * DEAD_AFTER_S)
        assert mine.take() == (3,)
    assert first >= 0.3
    (record,) = caplog.records
    assert "another replica hangs or is stopped" in record.message
    hanging.give_back()
    mine.take()
    assert mine._held
    mine.give_back()


def test_one_that_is_stopped_in_line_holds_nobody_up_for_long(tmp_path, join, monkeypatch) -> None:
    mine, third, fourth = join(), join(1), join(1)
    mine.take()
    with members(1, tmp_path, "--turns", "1") as (waiter,):
        waiter.go()
        wait_until(lambda: third._locks.is_held_elsewhere(turn_module.QUEUE_BYTE))
        waiter.process.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(turn_module, "PATIENCE_S", 0.3)
        assert third.take() == (3,)
        # Nobody is before him in line, but there is a core: that of the third, which was not held.
        mine.give_back()
        monkeypatch.setattr(turn_module, "PATIENCE_S", 10 * DEAD_AFTER_S)
        for _ in range(3):  # nor does he wait in that line again, as long as it is closed
            third.take()
            assert third._held
            third.give_back()
        wait_until(lambda: not mine._members.others_wait())
        # The place in line that he left is not taken by him once it comes.
        waiter.process.kill()
        waiter.process.wait()
        monkeypatch.setattr(turn_module, "PATIENCE_S", 10 * DEAD_AFTER_S)
        assert fourth.take()
        wait_until(lambda: not fourth._locks.is_held_elsewhere(turn_module.QUEUE_BYTE))


def test_more_members_than_cores_take_turns_and_none_starves(tmp_path) -> None:
    turns, count = 200, 5
    with members(count, tmp_path, "--turns", str(turns)) as started:
        for member in started:
            member.go()
        results = [member.result() for member in started]
    assert all(max(result["cores"][5:]) <= 2 for result in results)
    # They all end at about the same time, since none got more turns than another.
    half = [result["ends"][turns // 2] for result in results]
    first = min(result["ends"][0] for result in results)
    spread = (max(half) - min(half)) / (max(half) - first)
    assert spread < 0.5


def test_no_core_has_two_holders(tmp_path) -> None:
    """Each pass holds its cores' bytes: nobody else can lock them meanwhile."""
    with members(4, tmp_path, "--turns", "100", "--most", "2") as started:
        for member in started:
            member.go()
        results = [member.result() for member in started]
    intervals = [
        (end - 0.002, end, cores)
        for result in results
        for end, cores in zip(result["ends"], result["cores"], strict=True)
    ]
    for start, end, _ in intervals:
        middle = (start + end) / 2
        at_once = sum(cores for begun, ended, cores in intervals if begun <= middle < ended)
        assert at_once <= 2


def test_a_full_table_is_refused(tmp_path, monkeypatch, join) -> None:
    monkeypatch.setattr("serving.cores.members.MAX_MEMBERS", 1)
    join()
    with pytest.raises(OSError, match="more than 1 replicas"):
        CoreTurn(1, (3, 5), tmp_path)


def first_gets_beside(first: CoreTurn, second: CoreTurn) -> tuple[int, ...]:
    got: list[tuple[int, ...]] = []
    waiting = threading.Thread(target=lambda: got.append(first.take()))
    waiting.start()
    wait_until(second._members.others_wait)
    second.take()
    waiting.join(DEAD_AFTER_S)
    return got[0]


def wait_until(condition: Any) -> None:
    until = time.monotonic() + DEAD_AFTER_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.002)
