"""Whether a variant meets the SLO, and how sure that is."""

from __future__ import annotations

from typing import Literal

from loadtests.figures import too_many_undecided
from loadtests.results import VariantResult

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


def verdict(variant: VariantResult, target: float) -> Verdict:
    """Whether the whole interval of the attainment is above the target, below it, or neither.

    A turn that was stopped is a miss. Requests that were cut off before they had waited past a
    limit do not count in the attainment, so too many of them leave it open.
    """
    found = variant.slo_attainment
    if variant.stopped or found is None:
        return "misses"
    if found.low is not None and found.low >= target:
        is_open = too_many_undecided(variant.num_undecided, variant.planned, target)
        return "unclear" if is_open else "meets"
    return "misses" if found.high is not None and found.high < target else "unclear"
