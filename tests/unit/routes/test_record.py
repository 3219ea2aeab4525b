"""What is left of a limit since a request arrived."""

from __future__ import annotations

import time

import pytest

from serving.config import ServerConfig
from serving.errors import BodyTooSlow, DeadlineExceeded
from serving.routes.generation.bodies import CompletionsBody
from serving.routes.record import Record


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its one entry is the time."""
    now = [1_000.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("limit_s", "spent_s", "left_s"),
    [(30, 0.0, 30), (30, 0.05, 30), (30, 0.15, 29.9), (30, 29.999, 0.1), (0.01, 0.005, 0.01)],
)
def test_it_is_told_in_tenths_and_never_nothing(
    clock: list[float], limit_s: float, spent_s: float, left_s: float
) -> None:
    record = Record("an id", arrived=clock[0])
    clock[0] += spent_s
    assert record.time_left(limit_s) == pytest.approx(left_s)


@pytest.mark.parametrize(("body_s", "error"), [(29.0, BodyTooSlow), (0.1, DeadlineExceeded)])
def test_who_took_the_time_is_told(
    clock: list[float], body_s: float, error: type[Exception]
) -> None:
    record = Record("an id", arrived=clock[0], body_s=body_s)
    clock[0] += 30
    with pytest.raises(error, match="no time was left for an answer within 30 s"):
        record.time_left(30)


def test_a_generation_has_less_for_its_first_token_and_for_its_end(clock: list[float]) -> None:
    record = Record("an id", arrived=clock[0])
    clock[0] += 20
    asked = CompletionsBody(prompt="x").to_request(ServerConfig())
    left = record.within_time(asked)
    assert (left.first_token_timeout_s, left.timeout_s) == (10, 280)
