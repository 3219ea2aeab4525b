"""Whether a variant meets the SLO, and how sure that is."""

from __future__ import annotations

from typing import Literal

from loadtests.figures import met, too_many_cut_off
from loadtests.results import Estimate, VariantResult
from serving.quality.statistics import share

Verdict = Literal["meets", "unclear", "misses"]

METRICS = {"latency_ms": "latency", "ttft_ms": "TTFT", "tpot_ms": "TPOT"}


def slo_text(slo: dict[str, float]) -> str:
    """The limits in words."""
    return " and ".join(f"{METRICS.get(name, name)} ≤ {ms:g} ms" for name, ms in slo.items())


def timings(slo: dict[str, float]) -> list[str]:
    """The fields of a variant whose p95 says how fast it is: what the SLO asks of its tokens."""
    return [name for name in ("ttft", "tpot") if f"{name}_ms" in slo] or ["latency"]


def timing_name(timing: str) -> str:
    """In words."""
    return METRICS[f"{timing}_ms"]


def verdict(variant: VariantResult, slo: dict[str, float], target: float) -> Verdict:
    """Whether the whole interval of the attainment is above the target, below it, or neither.

    A turn that was stopped is a miss. The interval is ``sure_attainment``; requests that were cut
    off do not count in it, so too many of them leave it open.
    """
    found = sure_attainment(variant, slo)
    if variant.stopped or found is None:
        return "misses"
    if found.low is not None and found.low >= target:
        is_open = too_many_cut_off(variant.cut_off, variant.planned, target)
        return "unclear" if is_open else "meets"
    return "misses" if found.high is not None and found.high < target else "unclear"


def sure_attainment(variant: VariantResult, slo: dict[str, float]) -> Estimate | None:
    """SLO attainment with the wider of two intervals; None if no request counts.

    The interval over rounds is a point where every round met the SLO entirely; Wilson's over the
    requests knows that 100 of 100 do not prove 99 %. Wilson's takes requests for independent, which
    those that queue together are not; the one over rounds does not.
    """
    counted = variant.samples.where(~variant.samples.is_cut_off)
    if variant.slo_attainment is None or not len(counted):
        return None
    over_requests = share(int(met(counted, slo).sum()), len(counted))
    over_rounds = variant.slo_attainment
    lows, highs = [over_requests.low, over_rounds.low], [over_requests.high, over_rounds.high]
    return Estimate(
        value=over_requests.value,
        low=min(low for low in lows if low is not None),
        high=max(high for high in highs if high is not None),
    )
