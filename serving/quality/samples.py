"""The latest comparisons of one variant with the reference, of one origin."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from serving.quality.measures import summarise
from serving.quality.statistics import mean_of_shares, smallest_difference
from serving.seams import Comparison, Input, KeptSample, Origin, OriginReport

WINDOW = 2_000
"""Latest comparisons that the estimates are over."""

STALE_SHARE = 0.02
"""Estimates are made again once so many of their samples are new: resampling takes some time."""

MAX_WORST = 100
"""Of one variant and origin; they are part of every report."""


class Samples:
    """A window of comparisons, and of the worst ones the inputs if they are to be kept.

    Args:
        origin: Where the inputs come from.
        keep: Number of worst comparisons whose inputs are kept, but never more than ``MAX_WORST``;
            0 keeps no input.
    """

    def __init__(self, origin: Origin, keep: int = 0) -> None:
        self._origin = origin
        self._keep = min(keep, MAX_WORST)
        self._count = 0
        self._window: deque[Comparison] = deque(maxlen=WINDOW)
        self._worst: tuple[KeptSample, ...] = ()
        self._report: OriginReport | None = None
        self._num_new = 0

    @property
    def worst(self) -> tuple[KeptSample, ...]:
        """The kept ones, worst first, of equal ones the latest first; none that agree wholly."""
        return self._worst

    def add(self, comparison: Comparison, given: Input | None) -> None:
        """Take a comparison in; the oldest leaves when the window is full.

        Args:
            comparison: What came of it.
            given: The input; None if it was not kept.
        """
        self._window.append(comparison)
        self._count += 1
        self._num_new += 1
        if self._keep and given is not None and comparison.agreement < 1:
            sample = KeptSample(self._origin, given, comparison.agreement)
            ordered = sorted((sample, *self._worst), key=lambda kept: kept.agreement)
            self._worst = tuple(ordered[: self._keep])

    def count_earlier(self, count: int) -> None:
        """Count comparisons that are not in the window any more."""
        self._count += count

    def report(self) -> OriginReport | None:
        """Estimate every measure over the window; None before the first sample.

        The count is exact; the estimates may lack the last ``STALE_SHARE`` of the samples.
        """
        if self._num_new > STALE_SHARE * len(self._window):
            self._report = self._make_report()
            self._num_new = 0
        return self._report and replace(self._report, count=self._count)

    def _make_report(self) -> OriginReport:
        agreement = mean_of_shares([comparison.agreement for comparison in self._window])
        return OriginReport(
            origin=self._origin,
            count=self._count,
            measures={"agreement": agreement, **summarise(self._window)},
            smallest_difference=smallest_difference(1 - agreement.value, agreement.count),
        )
