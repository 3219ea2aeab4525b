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

from serving.cores.turn import CoreTurn
from serving.machine.cores import core_numbers
from tests.unit.cores.test_turn import wait_until

pytestmark = pytest.mark.skipif(len(core_numbers()) < 2, reason="needs two cores")


@contextmanager
def member(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.cores.exclusive_member", str(folder), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
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
    with member(tmp_path, 1), member(tmp_path, len(cores)) as refused:
        assert f"1 of {len(cores)} are exclusive to other replicas" in refused["error"]
