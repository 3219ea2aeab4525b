"""When requests go out: a pure function of the plan and a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from loadtests.randomness import random_numbers
from loadtests.section import Positive, Rate, Seconds, Section, find_file
from serving.errors import ConfigError

MAX_REQUESTS = 1_000_000
"""Of one turn, warm-up included; each is kept until the turn is over."""

Times = NDArray[np.float64]
"""Seconds from the start of the measured time, rising; those of the warm-up are negative."""


class Constant(Section):
    """Requests at equal distances.

    Attributes:
        rate: Requests per second.
    """

    kind: Literal["constant"]
    rate: Rate


class Poisson(Section):
    """Requests of many independent users: exponential gaps.

    Attributes:
        rate: Mean requests per second.
    """

    kind: Literal["poisson"]
    rate: Rate


class Gamma(Section):
    """Requests in bursts: gaps from a gamma distribution.

    Attributes:
        rate: Mean requests per second.
        burstiness: Coefficient of variation of the gaps; 1 is Poisson, more is burstier.
    """

    kind: Literal["gamma"]
    rate: Rate
    burstiness: Annotated[float, Field(ge=0.01, le=10)]


class Step(Section):
    """One stretch of ``RateSteps``."""

    rate: Rate
    duration_s: Seconds


class RateSteps(Section):
    """Poisson arrivals at one rate after the other.

    Attributes:
        steps: Their durations together take the place of the plan's ``duration_s``.
    """

    kind: Literal["steps"]
    steps: tuple[Step, ...] = Field(min_length=1, max_length=1_000)


class Replay(Section):
    """Requests at recorded times, the same ones in every round.

    Attributes:
        file: One timestamp in seconds a line; relative to the plan's folder. Those later than the
            warm-up and the duration after the first one are left out; of the others there may be
            ``MAX_REQUESTS``.
        speed: 2 replays twice as fast.
    """

    kind: Literal["replay"]
    file: str
    speed: Positive = 1


class Closed(Section):
    """For comparison only: users who send the next request when they have the last one's answer.

    A slow server slows them, which hides what users of their own time would feel.

    Attributes:
        users: How many.
    """

    kind: Literal["closed"]
    users: int = Field(ge=1, le=10_000)


Open = Constant | Poisson | Gamma | RateSteps | Replay
Arrivals = Annotated[Open | Closed, Field(discriminator="kind")]


def measured_s(arrivals: Open | Closed, duration_s: float) -> float:
    """Seconds that a turn is measured for."""
    if isinstance(arrivals, RateSteps):
        return sum(step.duration_s for step in arrivals.steps)
    return duration_s


def expected_requests(arrivals: Open | Closed, warmup_s: float, duration_s: float) -> float:
    """How many requests a turn plans on average; 0 if the law does not say."""
    match arrivals:
        case RateSteps(steps=steps):
            warmup = steps[0].rate * warmup_s
            return warmup + sum(step.rate * step.duration_s for step in steps)
        case Replay() | Closed():
            return 0
    return arrivals.rate * (warmup_s + duration_s)


def planned_times(
    arrivals: Open, warmup_s: float, duration_s: float, seed: tuple[int, ...], folder: Path
) -> Times:
    """Send times of one turn, from ``-warmup_s`` up to, but without, the end.

    Args:
        arrivals: Their law.
        warmup_s: Seconds before the measured time, at the (first) rate.
        duration_s: Measured seconds, where the law does not say itself.
        seed: Same seed, same times.
        folder: Where the file of a replay lies.

    Raises:
        ConfigError: A replay's file is missing, holds something else than rising numbers, or too
            many of them.
    """
    random = random_numbers("arrivals", seed)
    match arrivals:
        case Constant(rate=rate):
            count = int(np.ceil(round((warmup_s + duration_s) * rate, 6)))
            return np.arange(count, dtype=np.float64) / rate - warmup_s
        case Poisson(rate=rate):
            return _renewal(random, rate, 1, -warmup_s, duration_s)
        case Gamma(rate=rate, burstiness=burstiness):
            return _renewal(random, rate, burstiness, -warmup_s, duration_s)
        case RateSteps(steps=steps):
            ends = np.cumsum([step.duration_s for step in steps])
            starts = [-warmup_s, *ends[:-1]]
            parts = zip(steps, starts, ends, strict=True)
            return np.concatenate(
                [_renewal(random, step.rate, 1, start, end) for step, start, end in parts]
            )
        case Replay():
            recorded = _recorded(find_file(arrivals.file, folder))
            times: Times = recorded / arrivals.speed - warmup_s
            times = times[times < duration_s]
            if len(times) > MAX_REQUESTS:
                raise ConfigError(
                    f"{arrivals.file}: {len(times):,} requests in one turn; at most "
                    f"{MAX_REQUESTS:,}: lower the plan's duration_s, or speed"
                )
            return times


def _renewal(
    random: np.random.Generator, rate: float, burstiness: float, start: float, end: float
) -> Times:
    """Gaps of mean 1/rate and coefficient of variation ``burstiness``, from start up to end."""
    shape = 1 / burstiness**2
    times = np.empty(0)
    last = start
    while last < end:
        count = int((end - last) * rate * 1.1) + 16
        more = last + np.cumsum(random.gamma(shape, 1 / (rate * shape), count))
        times, last = np.concatenate([times, more]), more[-1]
    return times[times < end]


def _recorded(path: Path) -> Times:
    try:
        times = np.array([float(line) for line in path.read_text("utf-8").split()])
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: expected one timestamp in seconds a line: {error}") from None
    if not len(times) or not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise ConfigError(f"{path}: expected rising timestamps in seconds, at least one")
    since_first: Times = times - times[0]
    return since_first
