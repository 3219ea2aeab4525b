"""How many threads are chosen, and that they are measured once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from serving.artifacts import Artifact
from serving.cores import UnsharedCores
from serving.cores.thread_choice import ROUNDS
from serving.replica import thread_choice
from serving.replica.thread_choice import limit_to_useful_cores

CORES = 8


class Passes:
    """Passes that take a known time by number of threads, on a clock of their own."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.seconds = seconds
        self.now = 0.0
        self.run: list[int] = []
        self.threads = 0

    def use_cores(self, cores: Sequence[int]) -> None:
        self.threads = len(cores)

    def run_pass(self) -> None:
        self.run.append(self.threads)
        self.now += self.seconds[self.threads]


class BusyCores(UnsharedCores):
    """Others have all of them but two."""

    def take(self, background: bool = False) -> tuple[int, ...]:
        return super().take(background)[:2]


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return Artifact(tmp_path / "0123", manifest=None)  # type: ignore[arg-type]


@pytest.fixture
def choose(artifact, monkeypatch):
    def choose(passes: Passes, cores: UnsharedCores) -> int:
        monkeypatch.setattr(thread_choice, "available_cores", lambda: CORES)
        monkeypatch.setattr(thread_choice.time, "perf_counter", lambda: passes.now)
        limit_to_useful_cores(artifact, cores, passes.use_cores, passes.run_pass)
        return len(cores.take())

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
def test_the_smallest_number_as_good_as_the_best_is_taken(choose, seconds, expected) -> None:
    assert choose(Passes(seconds), UnsharedCores(CORES)) == expected


def test_what_was_measured_is_not_measured_again(choose) -> None:
    seconds = {1: 0.4, 2: 0.2, 4: 0.1, 8: 0.3}
    first, second = Passes(seconds), Passes(seconds)
    assert choose(first, UnsharedCores(CORES)) == 4
    assert first.run == [1, 2, 4, 8] * ROUNDS
    assert choose(second, UnsharedCores(CORES)) == 4
    assert second.run == []


def test_nothing_is_chosen_or_kept_where_the_cores_were_never_free(choose) -> None:
    seconds = {1: 0.4, 2: 0.5, 4: 0.1, 8: 0.3}
    cores = BusyCores(CORES)
    choose(Passes(seconds), cores)
    assert len(UnsharedCores.take(cores)) == CORES
    again = Passes(seconds)
    assert choose(again, UnsharedCores(CORES)) == 4
    assert again.run


@pytest.mark.parametrize("damage", [b"", b"{", b'{"x": {"many": 1}}'])
def test_a_damaged_file_is_measured_anew(choose, artifact, damage) -> None:
    artifact.folder.with_name("0123.threads").write_bytes(damage)
    assert choose(Passes({1: 0.4, 2: 0.2, 4: 0.1, 8: 0.3}), UnsharedCores(CORES)) == 4
