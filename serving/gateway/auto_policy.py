"""Which variant meets a request's limits at the least cost. A pure function of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from serving.seams import NO_LIMITS, AutoChoice, Limits

HYSTERESIS = 1.1
"""The variant that was chosen last stays until another one is cheaper by more than this factor."""

MAX_REASON = 200
MAX_TABLE = 1_000
"""Most characters of a reason, which is sent as a header, and of a refusal's table."""

UNKNOWN_LATENCY_MISS = 0.0
"""It takes a request to learn a variant's latency, so an unknown one gets the next request.

One at a time: while it has a request in flight it comes last.
"""

UNKNOWN_QUALITY_MISS = 1.0
"""No request can teach the quality, so an unknown one counts as none."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A variant that is ready.

    Attributes:
        variant: Its name.
        p95_latency_s: 95 of 100 requests that came now would be answered within these seconds;
            None if that is not known.
        service_s: Seconds that a request takes which has the machine for itself; None if that is
            not known.
        device: Where it runs; variants on the same device take time from each other.
        share_of_machine: Share of the machine that it takes meanwhile, 0 to 1.
        quality_low: Agreement with the reference that is certain; None if it is not known.
        in_auto: False if its verdict forbids to choose it.
        weights_bytes: Packed size of its weights.
        in_flight: Requests that it has not answered yet.
        num_measured: Requests or probes that its own latency is from.
    """

    variant: str
    p95_latency_s: float | None
    service_s: float | None
    device: str
    share_of_machine: float
    quality_low: float | None
    in_auto: bool
    weights_bytes: int
    in_flight: int = 0
    num_measured: int = 0

    @property
    def cost(self) -> float:
        """Seconds of the whole machine that a request takes; infinite if that is not known."""
        return inf if self.service_s is None else self.service_s * self.share_of_machine


@dataclass(frozen=True, slots=True)
class Refusal:
    """No variant may be chosen.

    Attributes:
        reason: Why, and what each variant offers, in one line.
    """

    reason: str


def choose(
    candidates: Sequence[Candidate], limits: Limits, policy: str, previous: str | None
) -> AutoChoice | Refusal:
    """Choose the cheapest variant that meets ``limits``.

    Of equals the first is chosen. A variant whose verdict forbids it is never chosen. A variant
    counts as no faster than one that costs clearly less of the same processor.

    Args:
        candidates: Every variant that is ready, in the order of the configuration.
        limits: What the request states.
        policy: What happens where no variant meets them: ``best_effort`` takes the one with the
            least sum of relative misses, ``strict`` refuses.
        previous: The last choice for these limits. It stays while it meets them and the cheapest
            is not cheaper by more than ``HYSTERESIS``.
    """
    table = at_this_load(candidates)
    usable = [candidate for candidate in table if candidate.in_auto]
    missed = {candidate.variant: misses(candidate, limits) for candidate in usable}
    qualified = [candidate for candidate in usable if not missed[candidate.variant]]
    if qualified:
        cheapest = min(qualified, key=lambda candidate: candidate.cost)
        chosen = _keep(previous, qualified, cheapest)
        return AutoChoice(chosen.variant, _why(chosen, cheapest, len(qualified), limits), ())
    if policy == "strict" or not usable:
        return Refusal(_refusal(table, limits, has_usable=bool(usable)))
    nearest = min(usable, key=lambda c: (sum(missed[c.variant].values()), c.cost))
    reason = f"no variant meets the limits; the nearest: {_offer(nearest)}"
    return AutoChoice(nearest.variant, reason[:MAX_REASON], tuple(missed[nearest.variant]))


def at_this_load(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The table by which ``choose`` chooses."""
    return [_at_this_load(candidate, candidates) for candidate in candidates]


def _at_this_load(candidate: Candidate, candidates: Sequence[Candidate]) -> Candidate:
    """Let a variant be no faster than one that costs clearly less of the same processor.

    A cheaper one that is slow waits for the processor. What was measured of the dearer one, or
    what its probes took, was measured without that; requests that went there would find the
    same wait, and make it longer. Variants that leave each other cores do not wait so.
    """
    if candidate.p95_latency_s is None:
        return candidate
    cheaper = [
        other.p95_latency_s
        for other in candidates
        if other.device == candidate.device
        and other.share_of_machine + candidate.share_of_machine > 1
        and HYSTERESIS * other.cost < candidate.cost
        and other.p95_latency_s is not None
    ]
    return replace(candidate, p95_latency_s=max([candidate.p95_latency_s, *cheaper]))


def misses(candidate: Candidate, limits: Limits) -> Mapping[str, float]:
    """Limits that a candidate does not meet, each with its relative distance.

    What is not known does not meet a limit.
    """
    unknown_latency = inf if candidate.in_flight else UNKNOWN_LATENCY_MISS
    found = {
        "max_latency_ms": _excess(candidate.p95_latency_s, limits.max_latency_s, unknown_latency),
        "min_quality": _shortfall(candidate.quality_low, limits.min_quality),
        "max_weights_bytes": _excess(candidate.weights_bytes, limits.max_weights_bytes, 0),
    }
    return {field: miss for field, miss in found.items() if miss is not None}


def in_words(candidate: Candidate, missed: Mapping[str, float], limits: Limits) -> str:
    """Why ``choose`` leaves a candidate out; empty if it does not.

    Args:
        candidate: As of ``at_this_load``.
        missed: What ``misses`` finds of it.
        limits: What the request states.
    """
    said = [] if candidate.in_auto else ["its verdict is failing"]
    latency_s, quality = candidate.p95_latency_s, candidate.quality_low
    if "max_latency_ms" in missed and limits.max_latency_s is not None:
        limit = f"the limit is {limits.max_latency_s * 1e3:g} ms"
        known = "unknown" if latency_s is None else f"{latency_s * 1e3:.1f} ms"
        said.append(f"p95 is {known}, {limit}")
    if "min_quality" in missed:
        known = "unknown" if quality is None else f"{quality:.4f}"
        said.append(f"agreement that is certain is {known}, the limit is {limits.min_quality:g}")
    if "max_weights_bytes" in missed:
        said.append(
            f"weights have {candidate.weights_bytes} bytes, the limit is {limits.max_weights_bytes}"
        )
    return "; ".join(said)


def _excess(value: float | None, limit: float | None, unknown: float) -> float | None:
    if limit is None or (value is not None and value <= limit):
        return None
    return unknown if value is None else value / limit - 1


def _shortfall(value: float | None, limit: float | None) -> float | None:
    if limit is None or (value is not None and value >= limit):
        return None
    return UNKNOWN_QUALITY_MISS if value is None else 1 - value / limit


def _keep(previous: str | None, qualified: Sequence[Candidate], cheapest: Candidate) -> Candidate:
    for candidate in qualified:
        if candidate.variant == previous and candidate.cost <= HYSTERESIS * cheapest.cost:
            return candidate
    return cheapest


def _why(chosen: Candidate, cheapest: Candidate, num_qualified: int, limits: Limits) -> str:
    if chosen is not cheapest:
        reason = f"chosen before, and {cheapest.variant} is hardly cheaper"
    elif limits == NO_LIMITS:
        reason = f"cheapest of {num_qualified}"
    else:
        reason = f"cheapest of {num_qualified} within the limits"
    return f"{reason}: {_offer(chosen)}"[:MAX_REASON]


def _refusal(candidates: Sequence[Candidate], limits: Limits, has_usable: bool) -> str:
    table = "; ".join(f"{candidate.variant} ({_offer(candidate)})" for candidate in candidates)
    why = f"no variant meets {_stated(limits)}" if has_usable else "every variant fails its floor"
    return f"{why}: {table[:MAX_TABLE]}"


def _stated(limits: Limits) -> str:
    stated = []
    if limits.max_latency_s is not None:
        stated.append(f"max_latency_ms {limits.max_latency_s * 1e3:g}")
    if limits.min_quality is not None:
        stated.append(f"min_quality {limits.min_quality:g}")
    if limits.max_weights_bytes is not None:
        stated.append(f"max_weights_bytes {limits.max_weights_bytes}")
    return " with ".join(stated)


def _offer(candidate: Candidate) -> str:
    latency, quality = candidate.p95_latency_s, candidate.quality_low
    offer = [
        "p95 unknown" if latency is None else f"p95 {latency * 1e3:.1f} ms",
        "quality unknown" if quality is None else f"quality {quality:.4f}",
        f"{candidate.weights_bytes} bytes",
    ]
    if not candidate.in_auto:
        offer.append("fails its floor")
    return ", ".join(offer)
