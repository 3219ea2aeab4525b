"""Measures of comparisons, by name: one by one, and over many.

A measure whose name begins with ``log_`` is the natural logarithm of what is reported under the
rest of its name, so that a mean over samples is a geometric one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from serving.quality.statistics import mean
from serving.seams import Comparison, Estimate

LOGARITHM = "log_"


def plain(measures: Mapping[str, float]) -> dict[str, float]:
    """Measures of one comparison as they are reported; infinite what is beyond all floats."""
    return {
        name.removeprefix(LOGARITHM): _exp(value)[0] if name.startswith(LOGARITHM) else value
        for name, value in measures.items()
    }


def summarise(comparisons: Iterable[Comparison]) -> dict[str, Estimate]:
    """Mean of each measure that any of the comparisons has, over those that have it."""
    known: dict[str, list[float]] = {}
    for comparison in comparisons:
        for name, value in comparison.measures.items():
            known.setdefault(name, []).append(value)
    return dict(_summary(name, values) for name, values in known.items())


def _summary(name: str, values: list[float]) -> tuple[str, Estimate]:
    estimate = mean(values)
    if not name.startswith(LOGARITHM):
        return name, estimate
    value, low, high = _exp(estimate.value, estimate.low, estimate.high)
    return name.removeprefix(LOGARITHM), Estimate(value, low, high, estimate.count)


def _exp(*logarithms: float) -> list[float]:
    with np.errstate(over="ignore"):  # a ratio beyond all floats is infinite
        values: list[float] = np.exp(logarithms).tolist()
    return values
