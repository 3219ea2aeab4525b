"""Evidence outlives the process, killed or not, and goes on where there can be no file."""

import asyncio
import logging
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serving.monitor.evidence import Evidence, keeping
from serving.monitor.evidence.schema import FILE, open_file
from tests.unit.fakes.waiting import MAX_WAIT_S, let_others_act
from tests.unit.monitor.evidence.pieces import (
    DAY,
    PAIR,
    PROBE_SET,
    STEP,
    change,
    live,
    model_config,
)

NUM_KILLS = 6
OTHER_PAIR = replace(PAIR, variant="bf16", artifact="bf16-1", max_tokens=128)


async def opened(folder: Path, **quality: Any) -> Evidence:
    evidence = Evidence(folder, [model_config(**quality)])
    await evidence.open()
    return evidence


async def test_another_process_finds_what_one_has_kept(tmp_path: Path) -> None:
    first = await opened(tmp_path)
    await first.add_live(PAIR, PROBE_SET, live(0.5))
    await first.add_verdict(PAIR, change())
    assert first.not_kept == ""
    first.close()
    second = await opened(tmp_path)
    known = await second.known(PAIR, PROBE_SET, None)
    assert (known.live, known.last_verdict) == ((live(0.5),), change())
    second.close()


async def test_no_input_reaches_the_disk_unless_it_may(tmp_path: Path) -> None:
    for folder, keep, is_there in ((tmp_path / "not", 0, False), (tmp_path / "may", 5, True)):
        evidence = await opened(folder, keep_samples=keep)
        await evidence.add_live(PAIR, PROBE_SET, live(0.5, "a secret text"))
        assert await evidence.live_inputs("sentiment") == (("a secret text",) if keep else ())
        evidence.close()
        assert (b"a secret text" in everything(folder)) == is_there


async def test_inputs_that_may_be_kept_no_longer_leave_the_disk(tmp_path: Path) -> None:
    evidence = await opened(tmp_path, keep_samples=5)
    for number in range(40):
        await evidence.add_live(PAIR, PROBE_SET, live(0.5, f"a secret text {number}"))
    evidence.close()
    evidence = await opened(tmp_path, keep_samples=0)
    assert b"a secret text" not in everything(tmp_path)
    evidence.close()


def everything(folder: Path) -> bytes:
    """Bytes of all files."""
    return b"".join(file.read_bytes() for file in folder.iterdir())


def standing_at(time: float) -> Callable[[], float]:
    return lambda: time


async def test_what_is_too_old_is_forgotten_when_it_opens(tmp_path: Path) -> None:
    now = 100 * DAY
    for age, keep_days, left in ((6 * DAY, 7, 1), (8 * DAY, 7, 1), (0.0, 7, 2)):
        evidence = Evidence(tmp_path, [model_config(keep_days=keep_days)], lambda: now)
        await evidence.open()
        evidence._clock = standing_at(now - age)
        await evidence.add_live(PAIR, PROBE_SET, live())
        evidence.close()
        evidence = Evidence(tmp_path, [model_config(keep_days=keep_days)], lambda: now)
        await evidence.open()
        assert (await evidence.known(PAIR, PROBE_SET, None)).num_live == left
        evidence.close()


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    caplog.set_level(logging.WARNING, logger=keeping.logger.name)
    # Ray gives the logger handlers of its own where it was imported.
    keeping.logger.addHandler(caplog.handler)
    yield caplog
    keeping.logger.removeHandler(caplog.handler)


async def works(evidence: Evidence) -> bool:
    """Whether it takes something in and knows it."""
    await evidence.add_live(PAIR, PROBE_SET, live(0.5))
    await evidence.add_verdict(PAIR, change())
    known = await evidence.known(PAIR, PROBE_SET, None)
    return known.live == (live(0.5),) and bool(await evidence.history(0.0))


async def test_without_a_folder_it_goes_on_in_memory_and_says_so(
    tmp_path: Path, warnings: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("")
    evidence = await opened(tmp_path / "taken")
    assert evidence.not_kept.startswith("in memory only: ")
    assert str(tmp_path / "taken" / FILE) in evidence.not_kept
    assert evidence.not_kept in warnings.text
    assert await works(evidence)
    evidence.close()


async def test_while_another_service_has_the_file_it_goes_on_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "LAST_PROCESS_S", 0.0)
    other = await opened(tmp_path)
    evidence = await opened(tmp_path)
    assert "another quality process has it open" in evidence.not_kept
    assert await works(evidence)
    assert (await other.known(PAIR, PROBE_SET, None)).num_live == 0
    evidence.close()
    other.close()


async def test_it_waits_for_the_process_that_it_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = await opened(tmp_path)

    def end_last(folder: Path) -> object:
        try:
            return open_file(folder)
        finally:
            last.close()

    monkeypatch.setattr(keeping, "open_file", end_last)
    monkeypatch.setattr(keeping, "LOOK_S", 0.0)
    evidence = await opened(tmp_path)
    assert evidence.not_kept == ""
    evidence.close()


async def test_a_file_that_comes_later_takes_up_what_is_known_and_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "LAST_PROCESS_S", 0.0)
    monkeypatch.setattr(keeping, "TRY_AGAIN_S", 0.0)
    now = time.time()
    last = await opened(tmp_path)
    await last.add_step(PAIR, PROBE_SET, STEP)
    await last.add_live(PAIR, PROBE_SET, live(0.5))
    await last.add_verdict(PAIR, change(at=now - 1))
    evidence = await opened(tmp_path)
    await evidence.add_step(OTHER_PAIR, PROBE_SET, STEP)
    await evidence.add_step(PAIR, PROBE_SET, STEP)
    await evidence.add_live(PAIR, PROBE_SET, live(0.75))
    await evidence.add_verdict(PAIR, change(at=now))
    keeping_bounded = asyncio.create_task(evidence.keep_bounded())
    await let_others_act()
    assert not keeping_bounded.done()
    last.close()
    await asyncio.wait_for(keeping_bounded, MAX_WAIT_S)  # so that Ray Serve replaces the process
    assert evidence.not_kept == ""
    await evidence.add_live(PAIR, PROBE_SET, live(1.0))
    evidence.close()
    next_one = await opened(tmp_path)
    known = await next_one.known(PAIR, PROBE_SET, None)
    assert [sample.comparison.agreement for sample in known.live] == [0.5, 0.75, 1.0]
    assert [len(known.steps), known.num_live, known.last_verdict] == [1, 3, change(at=now)]
    assert len((await next_one.known(OTHER_PAIR, PROBE_SET, None)).steps) == 1
    history = (await next_one.history(0.0))[PAIR.model]
    assert [one.at for one in history] == [now - 1, now]
    next_one.close()


async def test_a_file_that_takes_nothing_up_is_left_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_on_a_full_disk(folder: Path) -> tuple[sqlite3.Connection, int]:
        db, lock = open_file(folder)
        db.execute("PRAGMA max_page_count = 1")
        return db, lock

    (tmp_path / "taken").write_text("")
    evidence = await opened(tmp_path / "taken")
    for number in range(100):
        await evidence.add_live(PAIR, PROBE_SET, live(number / 100))
    (tmp_path / "taken").unlink()
    monkeypatch.setattr(keeping, "open_file", open_on_a_full_disk)
    assert await evidence._take_file() is not None
    assert "full" in evidence.not_kept
    assert (await evidence.known(PAIR, PROBE_SET, None)).num_live == 100
    db, lock = open_file(tmp_path / "taken")
    assert db.execute("SELECT count(*) FROM live_samples").fetchone() == (0,)
    db.close()
    os.close(lock)
    evidence.close()


async def test_a_damaged_file_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("a letter " * 1_000)
    evidence = await opened(tmp_path)
    assert "is not a database" in evidence.not_kept
    assert await works(evidence)
    evidence.close()
    assert (tmp_path / FILE).read_text() == "a letter " * 1_000


async def test_a_write_that_fails_is_told_until_one_succeeds(
    tmp_path: Path, warnings: pytest.LogCaptureFixture
) -> None:
    evidence = await opened(tmp_path)
    evidence._db.execute("PRAGMA query_only = ON")  # as on a disk that was mounted anew
    for _ in range(2):
        await evidence.add_live(PAIR, PROBE_SET, live())
        # Reading goes on, and says nothing of it.
        assert await evidence.history(0.0) == {}
        assert "readonly" in evidence.not_kept
    assert len({id(record) for record in warnings.records}) == 1
    evidence._db.execute("PRAGMA query_only = OFF")
    await evidence.add_live(PAIR, PROBE_SET, live())
    assert evidence.not_kept == ""
    assert (await evidence.known(PAIR, PROBE_SET, None)).num_live == 1
    evidence.close()


async def test_what_could_not_be_forgotten_is_told_until_a_write_succeeds(tmp_path: Path) -> None:
    evidence = await opened(tmp_path)
    evidence._db.execute("PRAGMA query_only = ON")
    await evidence.forget()
    assert "cannot be forgotten" in evidence.not_kept
    evidence._db.execute("PRAGMA query_only = OFF")
    await evidence.add_live(PAIR, PROBE_SET, live())
    assert evidence.not_kept == ""
    evidence.close()


def test_a_killed_process_loses_at_most_what_is_in_flight(tmp_path: Path) -> None:
    """Each child is killed at another moment, the first while it starts."""
    chance = random.Random(11)
    samples: list[int] = []
    verdicts: list[int] = []
    for kill in range(NUM_KILLS):
        first = len(samples)
        for what, number in acknowledged(tmp_path, first, chance.randrange(1, 60) if kill else 0):
            (samples if what == "sample" else verdicts).append(number)
        assert samples == list(range(len(samples)))

        db, lock = open_file(tmp_path)  # the kernel has released it
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        kept_samples = column(db, "json_extract(measures, '$.number')", "live_samples")
        kept_verdicts = column(db, "reason", "verdicts")
        for kept, seen in ((kept_samples, samples), (kept_verdicts, verdicts)):
            assert kept[: len(seen)] == seen
        # What was in flight may be there: one thing, of either kind.
        assert len(kept_samples) + len(kept_verdicts) <= len(samples) + len(verdicts) + 1
        samples, verdicts = kept_samples, kept_verdicts
        db.close()
        os.close(lock)
    assert len(samples) > NUM_KILLS
    assert verdicts


def acknowledged(folder: Path, first: int, at_least: int) -> list[tuple[str, int]]:
    """What a child says that it has kept, which is killed when it has said that so often."""
    command = [sys.executable, "-m", "tests.unit.monitor.evidence.killed_writer"]
    child = subprocess.Popen([*command, str(folder), str(first)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(at_least)]
    child.kill()
    lines += [line for line in child.stdout if line.endswith("\n")]
    child.wait()
    child.stdout.close()
    return [(what, int(number)) for what, number in map(str.split, lines)]


def column(db: sqlite3.Connection, what: str, table: str) -> list[int]:
    """Numbers of what was written to a table, in that order."""
    return [int(number) for (number,) in db.execute(f"SELECT {what} FROM {table} ORDER BY id")]
