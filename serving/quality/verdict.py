"""What is concluded about a variant from its samples and labels. A pure function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from serving.config import QualityConfig
from serving.seams import Estimate, LabelReport, Origin, OriginReport, Task, Verdict

MIN_SAMPLES = 50
"""Fewer samples of an origin, or labelled examples, decide nothing."""

_IN_WORDS: dict[Origin, str] = {
    "probes": "probes",
    "live": "live requests",
    "labels": "labelled data",
}


class Judgement(NamedTuple):
    """See ``VariantQuality``."""

    verdict: Verdict
    reason: str
    in_auto: bool
    quality_low: float | None


def thresholds(task: Task, quality: QualityConfig) -> tuple[float, float]:
    """Return the floor and the tolerance of a model: the given ones, else those of its task."""
    floor = task.floor if quality.floor is None else quality.floor
    tolerance = task.tolerance if quality.tolerance is None else quality.tolerance
    return floor, tolerance


def judge(
    origins: Sequence[OriginReport], labels: LabelReport | None, floor: float, tolerance: float
) -> Judgement:
    """Judge a variant.

    Agreement is the alarm: a variant whose agreement is surely below the floor, by any origin,
    fails. Between indistinguishable and degraded the labels decide where there are any, because
    measures of agreement do not rank variants that lose next to nothing (arXiv 2606.19558): an
    answer that differs need not be worse. Without labels a variant is degraded whose agreement is,
    by any origin, surely below ``1 - tolerance``. "Surely" is the 95 % interval of one look.

    Origins and labels of fewer than ``MIN_SAMPLES`` take no part.

    Args:
        origins: What is known by probes and by live requests; the order does not matter.
        labels: The latest evaluation; takes no part without a difference to the reference.
        floor: Agreement below which a variant fails and leaves ``auto``.
        tolerance: Share of disagreement that does not count as a loss.
    """
    enough = [origin for origin in origins if _agreement(origin).count >= MIN_SAMPLES]
    difference = labels.difference if labels else None
    quality_low = min((_agreement(origin).low for origin in enough), default=None)
    lowest = min(enough, key=lambda origin: _agreement(origin).high, default=None)

    if lowest and _agreement(lowest).high < floor:
        reason = f"{_sentence(lowest)}, below the floor of {floor:.4g}."
        return Judgement("failing", reason, False, quality_low)
    is_off = lowest is not None and _agreement(lowest).high < 1 - tolerance
    if labels and difference and difference.count >= MIN_SAMPLES:
        if _is_worse(labels, difference):
            return Judgement("degraded", _loss(labels, difference), True, quality_low)
        reason = _no_loss(labels, difference)
        if lowest and is_off:
            reason += f" Answers do differ: {_sentence(lowest)}."
        return Judgement("indistinguishable", reason, True, quality_low)
    if lowest is None:
        return Judgement("not enough samples", _missing(origins, difference), True, None)
    if is_off:
        reason = (
            f"{_sentence(lowest)}, below the {1 - tolerance:.4g} that is tolerated. "
            f"Labelled data would tell whether the answers are worse or only different."
        )
        return Judgement("degraded", reason, True, quality_low)
    best = min(enough, key=lambda origin: origin.smallest_difference)
    reason = (
        f"{_sentence(best)}. The smallest difference that these samples could have shown is "
        f"{best.smallest_difference:.2g}."
    )
    return Judgement("indistinguishable", reason, True, quality_low)


def _agreement(report: OriginReport) -> Estimate:
    return report.measures["agreement"]


def _sentence(report: OriginReport) -> str:
    agreement = _agreement(report)
    return (
        f"Agreement is {agreement.value:.4g} (95 % interval {_ends(agreement, '.4g')}) "
        f"over {agreement.count:,} samples of {_IN_WORDS[report.origin]}"
    )


def _missing(origins: Sequence[OriginReport], difference: Estimate | None) -> str:
    counts = {report.origin: _agreement(report).count for report in origins}
    if difference:
        counts["labels"] = difference.count
    if not counts:
        return f"No samples yet; a verdict needs {MIN_SAMPLES} of one origin."
    known = ", ".join(f"{count} of {_IN_WORDS[origin]}" for origin, count in counts.items())
    nearest = max(counts, key=lambda origin: counts[origin])
    return (
        f"A verdict needs {MIN_SAMPLES} samples of one origin; there are {known}: "
        f"{MIN_SAMPLES - counts[nearest]} more of {_IN_WORDS[nearest]} would do."
    )


def _is_worse(labels: LabelReport, difference: Estimate) -> bool:
    return difference.low > 0 if labels.perplexity else difference.high < 0


def _loss(labels: LabelReport, difference: Estimate) -> str:
    interval = f"95 % interval of the difference {_ends(difference, '+.2g')}"
    where = f"over {difference.count:,} examples of {labels.dataset}"
    if labels.perplexity:
        loss = (
            f"Perplexity is higher than the reference's by a factor of {1 + difference.value:.4g}"
        )
        return f"{loss} ({interval}) {where}."
    return f"Accuracy is {-difference.value:.2g} below the reference's ({interval}) {where}."


def _no_loss(labels: LabelReport, difference: Estimate) -> str:
    name = (
        "Perplexity over the reference's, minus 1,"
        if labels.perplexity
        else ("Accuracy minus the reference's")
    )
    reason = (
        f"{name} is {difference.value:+.2g} (95 % interval {_ends(difference, '+.2g')}) over "
        f"{difference.count:,} examples of {labels.dataset}."
    )
    if labels.smallest_difference is not None:
        reason += (
            f" The smallest difference that they could have shown is "
            f"{labels.smallest_difference:.2g}."
        )
    return reason


def _ends(estimate: Estimate, form: str) -> str:
    return f"{estimate.low:{form}} to {estimate.high:{form}}"
