"""How many threads are chosen, and that they are measured once."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.artifacts import Artifact
from serving.cores import UnsharedCores
from serving.cores.thread_choice import ROUNDS
from serving.replica import thread_choice
from serving.replica.thread_choice import choose_when_quiet

CORES = 8
SECONDS = {1: 0.4, 2: 0.2, 4: 0.1, 8: 0.3}


class Passes:
    """Passes that take a known time by number of threads."""

    def __init__(self, seconds: dict[int, float], cores: UnsharedCores) -> None:
        self.seconds, self.cores = seconds, cores
        self.run: list[int] = []
        self.others = [0.0]
        """Cores that others keep busy at the next looks; the last holds for all that follow."""

    async def run_pass(self) -> float:
        self.run.append(len(self.cores.take(background=True)))
        return self.seconds[self.run[-1]]

    def cores_of_others(self, before: object, after: object) -> float:
        return self.others.pop(0) if len(self.others) > 1 else self.others[0]


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return Artifact(tmp_path / "0123", manifest=None)  # type: ignore[arg-type]


@pytest.fixture
def choose(artifact, monkeypatch):
    async def choose(seconds: dict[int, float], *others: float) -> tuple[int, list[int]]:
        """Choose on a machine that is busy so; the number, and the passes that it took."""
        passes = Passes(seconds, cores := UnsharedCores(CORES))
        passes.others = list(others) or [0.0]
        monkeypatch.setattr(thread_choice, "available_cores", lambda: CORES)
        monkeypatch.setattr(thread_choice, "cores_of_others", passes.cores_of_others)
        monkeypatch.setattr(thread_choice, "LOOK_S", 0.0)
        monkeypatch.setattr(thread_choice, "FIRST_PAUSE_S", 0.0)
        monkeypatch.setattr(thread_choice, "PAUSE_S", 0.0)
        await choose_when_quiet(artifact, cores, passes.run_pass)
        return len(cores.take()), passes.run

    return choose


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({1: 0.8, 2: 0.4, 4: 0.2, 8: 0.1}, 8),
        ({1: 0.8, 2: 0.4, 4: 0.2, 8: 0.3}, 4),
        ({1: 0.8, 2: 0.4, 4: 0.2, 8: 0.195}, 4),
        ({1: 0.104, 2: 0.101, 4: 0.1, 8: 0.2}, 1),
    ],
)
async def test_the_smallest_number_as_good_as_the_best_is_taken(choose, seconds, expected) -> None:
    assert (await choose(seconds))[0] == expected


async def test_what_was_measured_is_not_measured_again(choose) -> None:
    assert await choose(SECONDS) == (4, [1, 2, 4, 8] * ROUNDS)
    assert await choose(SECONDS) == (4, [])


async def test_a_busy_machine_is_waited_for(choose) -> None:
    # Not quiet at two looks, then quiet, but not while passes are timed; then all is well.
    assert await choose(SECONDS, 2.0, 2.0, 0.0, 2.0, 0.0) == (4, [1, 2, 4, 8] * ROUNDS * 2)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"x": {"many": 1}}'])
async def test_a_damaged_file_is_measured_anew(choose, artifact, damage) -> None:
    artifact.folder.with_name("0123.threads").write_bytes(damage)
    assert (await choose(SECONDS))[0] == 4
