"""A bucket that fills with time and never holds more than a second's worth."""

from __future__ import annotations

import pytest

from serving.quality.rate_limit import RateLimit


class Clock:
    """A time that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def taken(limit: RateLimit, tries: int) -> int:
    """How many of so many tries in a row succeed."""
    return sum(limit.take() for _ in range(tries))


@pytest.mark.parametrize(("per_second", "burst"), [(0.25, 1), (1, 1), (4, 4), (4.5, 4)])
def test_at_first_there_is_one_second_s_worth(per_second: float, burst: int) -> None:
    assert taken(RateLimit(per_second, Clock()), 10) == burst


@pytest.mark.parametrize(
    ("per_second", "elapsed", "gained"),
    [(4, 0.25, 1), (4, 0.6, 2), (4, 60, 4), (0.25, 3.9, 0), (0.25, 4, 1), (0.25, 60, 1)],
)
def test_it_fills_with_time(per_second: float, elapsed: float, gained: int) -> None:
    clock = Clock()
    limit = RateLimit(per_second, clock)
    taken(limit, 10)
    clock.now += elapsed
    assert taken(limit, 10) == gained


def test_in_the_long_run_no_more_pass_than_the_rate_allows() -> None:
    clock = Clock()
    limit = RateLimit(3, clock)
    passed = 0
    for _ in range(1_000):
        clock.now += 0.0625
        passed += taken(limit, 2)
    # What it held at first, and what has come since but for a part of one.
    assert 3 + 1_000 * 0.0625 * 3 - passed < 1 + 0.0625 * 3
    assert passed <= 3 + 1_000 * 0.0625 * 3
