"""Processes that answer now and then: what they had counted before is not of this moment."""

from __future__ import annotations

import pytest

from serving.gateway.readings import Readings
from serving.metrics import EdgeMetrics, Labels, exposition
from serving.metrics.reading import figures_between, read_pages

LABELS = Labels("minilm", "fp32", "embeddings")
TICK_S = 10.0


class Service:
    """Processes of one variant, which are looked at every ten seconds."""

    def __init__(self, *names: str) -> None:
        self.processes = {name: EdgeMetrics(name) for name in names}
        self.silent: set[str] = set()
        self._readings = Readings(120.0)
        self._now = 0.0

    def answer(self, name: str, times: int) -> None:
        for _ in range(times):
            self.processes[name].observe(LABELS, 200, 0.1)

    def look(self) -> tuple[float, float]:
        """Requests answered since the last look, and since the first."""
        self._now += TICK_S
        heard = self.processes.keys() - self.silent
        pages = [exposition([self.processes[name].registry]) for name in heard]
        seen = self._readings.add(
            read_pages(pages, self._now), self.processes.keys(), is_whole=not self.silent
        )
        if seen is None:
            return 0, 0
        first, before, now = seen
        return self._answered(before, now), self._answered(first, now)

    def _answered(self, before, now) -> float:
        figures = figures_between(before, now)
        if not figures:
            return 0
        return figures["minilm", "fp32"].requests_per_s * (now.at - before.at)


def test_one_that_is_silent_for_a_while_counts_what_it_did_meanwhile() -> None:
    service = Service("a", "b")
    service.answer("a", 1_000)
    service.answer("b", 1_000)
    service.look()
    service.silent = {"a"}
    for _ in range(2):
        service.answer("a", 1)
        service.answer("b", 2)
        assert service.look()[0] == pytest.approx(2)
    service.silent = set()
    assert service.look() == (pytest.approx(2), pytest.approx(6))


def test_one_that_was_silent_at_the_first_look_counts_from_the_second_on() -> None:
    service = Service("a", "b")
    service.answer("a", 1_000)
    service.answer("b", 1_000)
    service.silent = {"a"}
    service.look()
    service.silent = set()
    assert service.look() == (0, 0)
    service.answer("a", 3)
    assert service.look() == (pytest.approx(3), pytest.approx(3))


def test_a_new_one_counts_from_its_start() -> None:
    service = Service("a")
    service.look()
    service.processes["b"] = EdgeMetrics("b")
    service.answer("b", 5)
    assert service.look() == (pytest.approx(5), pytest.approx(5))


def test_one_that_has_ended_is_forgotten() -> None:
    service = Service("a", "b")
    service.answer("a", 10)
    service.look()
    del service.processes["a"]
    service.look()
    service.processes["a"] = EdgeMetrics("a")  # no process has the name of another one
    service.answer("a", 4)
    assert service.look()[0] == pytest.approx(4)


def test_what_is_older_than_the_span_is_gone() -> None:
    service = Service("a")
    service.look()
    for _ in range(20):
        service.answer("a", 1)
        last, span = service.look()
    assert (last, span) == (pytest.approx(1), pytest.approx(12))
