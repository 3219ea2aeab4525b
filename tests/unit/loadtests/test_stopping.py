"""When a turn stops early, and when it does not."""

from __future__ import annotations

import numpy as np
import pytest

from loadtests.stopping import errors_stop, saturation_stops

SECONDS = np.arange(11.0)


def noise(size: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, size, len(SECONDS))


@pytest.mark.parametrize(
    ("ok", "most", "stops"),
    [
        ([False] * 19, 0.5, False),
        ([False] * 20, 0.5, True),
        ([False] * 50 + [True] * 50, 0.5, False),
        ([False] * 51 + [True] * 49, 0.5, True),
        ([False] * 100, None, False),
    ],
)
def test_errors(ok, most, stops) -> None:
    assert bool(errors_stop(ok, most)) is stops


def test_a_queue_that_grows_is_over_saturation() -> None:
    reason = saturation_stops(
        SECONDS.tolist(),
        (20 * SECONDS + 3 + noise(4)).tolist(),
        (0.5 * SECONDS + 0.1 + noise(0.1)).tolist(),
    )
    assert reason.startswith("over-saturated: in 10 s the requests in flight went from")


@pytest.mark.parametrize(
    ("in_flight", "latencies"),
    [
        (10 + noise(3), 0.2 + noise(0.05)),
        (20 * SECONDS + 3, 0.2 + noise(0.05)),
        (10 + noise(3), 0.5 * SECONDS + 0.1),
        # Both rise, but by less than they are.
        (100 + SECONDS, 1 + 0.01 * SECONDS),
        # A burst that is over again.
        (30 - np.abs(SECONDS - 5) * 6, 1 - np.abs(SECONDS - 5) * 0.2),
    ],
)
def test_anything_else_is_not(in_flight, latencies) -> None:
    assert saturation_stops(SECONDS.tolist(), in_flight.tolist(), latencies.tolist()) == ""


def test_few_moments_say_nothing() -> None:
    assert saturation_stops([0, 1, 2], [1, 20, 40], [0.1, 1, 2]) == ""
