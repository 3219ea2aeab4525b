"""When a turn has to end early. Pure functions of what was seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loadtests.intervals import t_quantile

MIN_REQUESTS = 20
"""Fewer say nothing about the share of errors."""

MIN_POINTS = 5


def errors_stop(recent_ok: Sequence[bool], most: float | None) -> str:
    """Why the latest requests stop the turn; empty if they do not.

    Args:
        recent_ok: Which of the latest requests went well.
        most: Greatest share of errors; None never stops.
    """
    if most is None or len(recent_ok) < MIN_REQUESTS:
        return ""
    share = 1 - sum(recent_ok) / len(recent_ok)
    if share <= most:
        return ""
    return f"{share:.0%} of the last {len(recent_ok)} requests failed (at most {most:.0%})"


def saturation_stops(
    seconds: Sequence[float], in_flight: Sequence[float], latencies: Sequence[float]
) -> str:
    """Why the load is more than the server can take; empty if it does not seem so.

    A server that cannot keep up has a queue that grows for as long as the load lasts, and with it
    the latency. So both must rise: the lower end of the 95 % interval of a straight line's slope is
    above 0, and the line rises over the window by at least its mean, which means that it triples.

    Args:
        seconds: Moments within the window, rising.
        in_flight: Requests under way at each.
        latencies: Mean latency of what was answered since the moment before, in seconds.
    """
    if len(seconds) < MIN_POINTS or not (rises(seconds, in_flight) and rises(seconds, latencies)):
        return ""
    return (
        f"over-saturated: in {seconds[-1] - seconds[0]:.0f} s the requests in flight went from "
        f"{in_flight[0]:.0f} to {in_flight[-1]:.0f} and the latency from {latencies[0]:.2f} to "
        f"{latencies[-1]:.2f} s"
    )


def rises(seconds: Sequence[float], values: Sequence[float]) -> bool:
    """Whether a line through the values rises beyond doubt, and by at least their mean."""
    x, y = np.asarray(seconds, np.float64), np.asarray(values, np.float64)
    spread = x - x.mean()
    slope = float(spread @ y / (spread @ spread))
    residuals = y - y.mean() - slope * spread
    freedom = len(x) - 2
    error = float(np.sqrt(residuals @ residuals / freedom / (spread @ spread)))
    return slope - t_quantile(freedom) * error > 0 and slope * (x[-1] - x[0]) >= y.mean()
