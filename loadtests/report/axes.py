"""What variants are ranked by, and how two of them are compared by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from loadtests.figures import is_decided, met
from loadtests.report.difference import (
    Difference,
    Shares,
    exact,
    over_requests,
    over_rounds,
    ratio,
    shares,
    wider,
)
from loadtests.report.measures import figure_of
from loadtests.report.slo import timing_name
from loadtests.results import IntervalEstimate, Peak, VariantResult

Compare = Callable[[VariantResult, VariantResult], Difference | None]


@dataclass(frozen=True, slots=True)
class Axis:
    """Something that variants have more or less of.

    Attributes:
        title: With its unit.
        of: Takes it from a variant.
        between: How far the second variant is from the first; None where it is not known, and for
            what is no estimate.
        scale: From the result's unit to the shown one.
        more_is_better: Which way is up.
    """

    title: str
    of: Callable[[VariantResult], IntervalEstimate | None]
    between: Compare | None
    scale: float = 1
    more_is_better: bool = False

    def can_tell(self, one: VariantResult, other: VariantResult) -> bool | None:
        """Whether the two differ beyond the interval of their difference; None if unknown."""
        found = self.between(one, other) if self.between else None
        return None if found is None else found.is_sure

    def is_no_worse(self, one: VariantResult, other: VariantResult) -> bool:
        """By the figures alone."""
        a, b = self.of(one), self.of(other)
        if a is None or b is None:
            return False
        return a.value >= b.value if self.more_is_better else a.value <= b.value


def timing(name: str) -> Axis:
    """The p95 of a variant's ``latency``, ``ttft`` or ``tpot``."""

    def of(variant: VariantResult) -> IntervalEstimate | None:
        return figure_of(getattr(variant, name), "p95")

    unit = "ms per token" if name == "tpot" else "from the planned time, ms"
    separator = ", " if name == "tpot" else " "
    title = f"p95 {timing_name(name)}{separator}{unit}"
    return Axis(title, of, lambda one, other: ratio(of(one), of(other)), 1e3)


def slo_met(slo: dict[str, float]) -> Axis:
    """The share of requests that met the SLO."""

    def between(one: VariantResult, other: VariantResult) -> Difference | None:
        return slo_difference(one, other, slo)

    return Axis("SLO met, %", lambda variant: variant.slo_attainment, between, 100, True)


def slo_difference(
    one: VariantResult, other: VariantResult, slo: dict[str, float], *, paired: bool = True
) -> Difference | None:
    """Of the shares that met the SLO; with the wider interval, as the shares themselves."""
    a, b = (_slo_shares(variant, slo) for variant in (one, other))
    return wider([over_requests(a, b, paired=paired), over_rounds(a, b, paired=paired)])


def _slo_shares(variant: VariantResult, slo: dict[str, float]) -> Shares:
    samples = variant.samples
    return shares(samples, np.where(is_decided(samples, slo), met(samples, slo), np.nan))


def agreement_difference(
    one: VariantResult, other: VariantResult, *, paired: bool = True
) -> Difference | None:
    """Of the agreement with the reference, over the requests."""
    return over_requests(_agreement_shares(one), _agreement_shares(other), paired=paired)


def _agreement_shares(variant: VariantResult) -> Shares:
    samples = variant.samples
    # The reference agrees with itself.
    value = np.ones(len(samples)) if variant.is_reference else samples.agreement
    return shares(samples, value)


def _quality(variant: VariantResult) -> IntervalEstimate | None:
    if variant.is_reference:
        return IntervalEstimate(value=1, low=1, high=1)
    return variant.agreement.estimate if variant.agreement else None


AGREEMENT = Axis("agreement with the reference", _quality, agreement_difference, 1, True)


def _weights(variant: VariantResult) -> IntervalEstimate | None:
    found = variant.server.weights_bytes
    return None if found is None else IntervalEstimate(value=found)


def _weights_between(one: VariantResult, other: VariantResult) -> Difference | None:
    a, b = one.server.weights_bytes, other.server.weights_bytes
    return None if a is None or b is None else exact(a, b)


WEIGHTS = Axis("weights", _weights, _weights_between)


def highest_rate(peaks: Sequence[Peak]) -> Axis:
    """The highest rate that surely met the SLO, with what is between it and the one missed.

    The two rates are where a search ended, no confidence interval, so variants are not compared.
    """
    found = {peak.variant: peak for peak in peaks}

    def of(variant: VariantResult) -> IntervalEstimate | None:
        peak = found.get(variant.variant)
        if peak is None or peak.rate is None:
            return None
        return IntervalEstimate(value=peak.rate, low=peak.rate, high=peak.missed_at)

    return Axis("highest rate that meets the SLO, requests/s", of, None, 1, True)
