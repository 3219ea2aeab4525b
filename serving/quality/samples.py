"""The latest comparisons of one variant with the reference, of one origin."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from serving.quality.measures import summarise
from serving.quality.statistics import mean_of_shares, smallest_difference
from serving.seams import Comparison, Estimate, Input, KeptSample, Origin, OriginReport

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
        self._estimates: Mapping[str, Estimate] = {}
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

    def stale(self) -> tuple[Comparison, ...] | None:
        """What to make new estimates over; None while those that there are will do.

        Whoever gets them makes ``estimates_over`` them, which takes tenths of a second of many,
        and brings the result to ``take_estimates``.
        """
        if self._num_new <= STALE_SHARE * len(self._window):
            return None
        self._num_new = 0
        return tuple(self._window)

    def take_estimates(self, estimates: Mapping[str, Estimate]) -> None:
        """Take what was estimated over what ``stale`` returned."""
        self._estimates = estimates

    def report(self) -> OriginReport | None:
        """The latest estimates of every measure; None before the first.

        The count is exact; the estimates may lack the last ``STALE_SHARE`` of the samples.
        """
        if not self._estimates:
            return None
        agreement = self._estimates["agreement"]
        return OriginReport(
            origin=self._origin,
            count=self._count,
            measures=self._estimates,
            smallest_difference=smallest_difference(1 - agreement.value, agreement.count),
        )


def estimates_over(comparisons: Sequence[Comparison]) -> dict[str, Estimate]:
    """Estimate every measure over comparisons, at least one; a pure function."""
    agreement = mean_of_shares([comparison.agreement for comparison in comparisons])
    return {"agreement": agreement, **summarise(comparisons)}
