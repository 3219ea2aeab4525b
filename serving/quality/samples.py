"""The latest comparisons of one variant with the reference, from one source."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from serving.quality.agreement import Comparison
from serving.quality.statistics import mean, mean_of_shares, smallest_difference
from serving.seams import Estimate, KeptSample, Source, SourceReport

WINDOW = 2_000
"""Latest comparisons that the estimates are over."""

STALE_SHARE = 0.02
"""Estimates are made again once so many of their samples are new: resampling takes some time."""


class Samples:
    """A window of comparisons, and of the worst ones the texts if they are to be kept.

    Args:
        source: Where the inputs come from.
        keep: Number of worst comparisons whose texts are kept; 0 keeps no text.
    """

    def __init__(self, source: Source, keep: int = 0) -> None:
        self._source = source
        self._keep = keep
        self._count = 0
        self._window: deque[Comparison] = deque(maxlen=WINDOW)
        self._worst: tuple[KeptSample, ...] = ()
        self._report: SourceReport | None = None
        self._num_new = 0

    @property
    def worst(self) -> tuple[KeptSample, ...]:
        """The kept ones, worst first, of equal ones the latest first; none that agree wholly."""
        return self._worst

    def add(self, comparison: Comparison, text: str) -> None:
        """Take a comparison in; the oldest leaves when the window is full."""
        self._window.append(comparison)
        self._count += 1
        self._num_new += 1
        if self._keep and comparison.agreement < 1:
            sample = KeptSample(self._source, text, comparison.agreement)
            ordered = sorted((sample, *self._worst), key=lambda kept: kept.agreement)
            self._worst = tuple(ordered[: self._keep])

    def report(self) -> SourceReport | None:
        """Estimate every measure over the window; None before the first sample.

        The count is exact; the estimates may lack the last ``STALE_SHARE`` of the samples.
        """
        if self._num_new > STALE_SHARE * len(self._window):
            self._report = self._make_report()
            self._num_new = 0
        return self._report and replace(self._report, count=self._count)

    def _make_report(self) -> SourceReport:
        agreement = mean_of_shares([comparison.agreement for comparison in self._window])
        measures = {
            "agreement": agreement,
            "cosine": _mean_of_known(c.cosine for c in self._window),
            "probability_change": _mean_of_known(c.probability_change for c in self._window),
            "divergence": _mean_of_known(c.divergence for c in self._window),
            "perplexity_ratio": _exp(_mean_of_known(c.log_perplexity_ratio for c in self._window)),
        }
        return SourceReport(
            source=self._source,
            count=self._count,
            measures={name: known for name, known in measures.items() if known is not None},
            smallest_difference=smallest_difference(1 - agreement.value, agreement.count),
        )


def _mean_of_known(values: Iterable[float | None]) -> Estimate | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def _exp(logarithm: Estimate | None) -> Estimate | None:
    if logarithm is None:
        return None
    with np.errstate(over="ignore"):  # a ratio beyond all floats is infinite
        value, low, high = np.exp([logarithm.value, logarithm.low, logarithm.high]).tolist()
    return Estimate(value, low, high, logarithm.count)
