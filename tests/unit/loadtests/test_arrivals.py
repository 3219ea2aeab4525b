"""Planned times: rates, dispersion, and that they depend on nothing but their arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from loadtests import arrivals
from loadtests.arrivals import (
    Arrivals,
    Times,
    expected_requests,
    measured_s,
    planned_times,
)
from serving.errors import ConfigError

HERE = Path(__file__).parent


def parse(**given: Any) -> Any:
    return TypeAdapter(Arrivals).validate_python(given)


def times_of(duration_s: float = 500, seed: int = 0, **given: Any) -> Times:
    return planned_times(parse(**given), 3, duration_s, (seed,), HERE)


def test_constant_times_are_equally_spaced_and_fill_warm_up_and_duration() -> None:
    times = times_of(duration_s=2, kind="constant", rate=10)
    assert len(times) == 50
    np.testing.assert_allclose(np.diff(times), 0.1)
    assert times[0] == -3
    assert times[-1] < 2


@pytest.mark.parametrize(
    ("given", "variation"),
    [
        ({"kind": "poisson", "rate": 40}, 1),
        ({"kind": "gamma", "rate": 40, "burstiness": 0.3}, 0.3),
        ({"kind": "gamma", "rate": 40, "burstiness": 3}, 3),
    ],
)
def test_random_gaps_have_the_rate_and_the_dispersion(given, variation) -> None:
    times = times_of(**given)
    gaps = np.diff(times)
    # 20,000 gaps: five standard errors of the mean are 3.5 % times the variation.
    assert len(times) / 503 == pytest.approx(40, rel=0.04 * max(variation, 1))
    assert gaps.std() / gaps.mean() == pytest.approx(variation, rel=0.12)
    assert (gaps >= 0).all()
    assert times[0] >= -3
    assert times[-1] < 500


def test_steps_have_a_rate_each_and_say_the_duration() -> None:
    steps = [{"rate": 20, "duration_s": 200}, {"rate": 60, "duration_s": 100}]
    given: Any = {"kind": "steps", "steps": steps}
    times = times_of(**given)
    assert measured_s(parse(**given), 7) == 300
    assert (times < 0).sum() / 3 == pytest.approx(20, rel=0.5)
    assert ((times >= 0) & (times < 200)).sum() == pytest.approx(4_000, rel=0.08)
    assert (times >= 200).sum() == pytest.approx(6_000, rel=0.08)
    assert times.max() < 300


@pytest.mark.parametrize("kind", ["poisson", "gamma", "steps"])
def test_the_seed_decides(kind) -> None:
    more: dict[str, dict[str, Any]] = {
        "poisson": {"rate": 5},
        "gamma": {"rate": 5, "burstiness": 2},
        "steps": {"steps": [{"rate": 5, "duration_s": 30}]},
    }
    first, again, other = (times_of(30, seed, kind=kind, **more[kind]) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert len(first) != len(other) or (first != other).any()


def test_a_replay_keeps_the_gaps_and_ends_with_the_turn(tmp_path) -> None:
    (tmp_path / "trace.txt").write_text("100\n101\n105\n140\n")
    replay = parse(kind="replay", file="trace.txt", speed=2)
    times = planned_times(replay, 1, 10, (0,), tmp_path)
    np.testing.assert_allclose(times, [-1, -0.5, 1.5])


def test_a_replay_of_too_many_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(arrivals, "MAX_REQUESTS", 3)
    (tmp_path / "trace.txt").write_text("1\n2\n3\n4\n")
    replay = parse(kind="replay", file="trace.txt")
    assert len(planned_times(replay, 0, 2.5, (0,), tmp_path)) == 3
    with pytest.raises(ConfigError, match=r"trace\.txt: 4 requests in one turn; at most 3"):
        planned_times(replay, 0, 10, (0,), tmp_path)


@pytest.mark.parametrize(
    "given",
    [
        {"kind": "constant", "rate": 10},
        {"kind": "gamma", "rate": 10, "burstiness": 0.01},
        {
            "kind": "steps",
            "steps": [{"rate": 10, "duration_s": 400}, {"rate": 40, "duration_s": 100}],
        },
    ],
)
def test_the_number_of_requests_is_known_beforehand(given) -> None:
    expected = expected_requests(parse(**given), 3, 500)
    assert len(times_of(**given)) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("text", ["", "2\n1\n", "1\nsoon\n", "nan\n"])
def test_a_replay_of_something_else_is_refused(tmp_path, text) -> None:
    (tmp_path / "trace.txt").write_text(text)
    with pytest.raises(ConfigError, match=r"trace\.txt: expected"):
        planned_times(parse(kind="replay", file="trace.txt"), 1, 10, (0,), tmp_path)
