"""Exclusive cores among real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from serving.cores.members import MEMBER_BYTES
from serving.cores.turn import CoreTurn
from serving.machine.cores import core_numbers
from tests.unit.cores.test_turn import wait_until

pytestmark = pytest.mark.skipif(len(core_numbers()) < 2, reason="needs two cores")


def start(folder: Path, count: int, claim_s: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.unit.cores.exclusive_member"]
    return subprocess.Popen(
        [*command, str(folder), str(count), str(claim_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@contextmanager
def member(folder: Path, count: int, claim_s: float = 30) -> Iterator[dict[str, Any]]:
    process = start(folder, count, claim_s)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def test_its_threads_are_bound_and_others_share_the_rest(tmp_path) -> None:
    cores = core_numbers()
    with closing(CoreTurn(len(cores), cores, tmp_path)) as shared:
        with member(tmp_path, 1) as own:
            assert own["cores"] == cores[:1]
            assert own["bound"] == [cores[:1]] * 2
            assert list(shared.take()) == cores[1:]
            shared.give_back()
            assert list(shared.take(background=True)) == cores[1:]
            shared.give_back()
        # It was killed: its cores are free again.
        wait_until(lambda: sorted(shared.take()) == cores)


def test_it_gets_cores_that_are_in_use_as_soon_as_they_are_given_back(tmp_path) -> None:
    cores = core_numbers()
    with closing(CoreTurn(len(cores), cores, tmp_path)) as shared:
        assert list(shared.take()) == cores
        shared.give_back()
        with member(tmp_path, len(cores) - 1) as own:
            assert own["cores"] == cores[:-1]
            assert list(shared.take()) == cores[-1:]


def test_where_all_cores_are_exclusive_the_others_go_on_without_turns(tmp_path) -> None:
    cores = core_numbers()
    with member(tmp_path, len(cores)) as own, closing(CoreTurn(9, cores, tmp_path)) as shared:
        assert own["cores"] == cores
        assert list(shared.take()) == cores[:1]
        shared.give_back()


def test_more_than_there_are_is_refused(tmp_path) -> None:
    cores = core_numbers()
    with member(tmp_path, 1), member(tmp_path, len(cores), claim_s=0.3) as refused:
        assert f"1 of {len(cores)} are exclusive to other replicas" in refused["error"]


def test_a_core_that_is_never_given_back_is_waited_for_in_vain(tmp_path) -> None:
    cores = core_numbers()
    with closing(CoreTurn(len(cores), cores, tmp_path)) as hanging:
        assert list(hanging.take()) == cores
        with member(tmp_path, 1, claim_s=0.3) as refused:
            assert "0 of 1 cores were given back within 0.3 s" in refused["error"]
        # What it asked for is nobody's again.
        hanging.give_back()
        assert list(hanging.take()) == cores


def test_a_replacement_waits_until_its_predecessor_has_ended(tmp_path) -> None:
    cores = core_numbers()
    with member(tmp_path, len(cores)) as before:
        assert before["cores"] == cores
        after = start(tmp_path, len(cores), 60)
        with closing(CoreTurn(1, cores, tmp_path)) as other:
            # It has begun to wait once it has a row, and holds nobody up meanwhile.
            wait_until(
                lambda: any(other._locks.is_held_elsewhere(MEMBER_BYTES + row) for row in (1, 2))
            )
            assert list(other.take()) == cores[:1]
    assert after.stdout is not None
    try:
        assert json.loads(after.stdout.readline())["cores"] == cores
    finally:
        after.kill()
        after.communicate()
