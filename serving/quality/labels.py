"""What labelled data says of a variant, beside the reference on the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from serving.quality.statistics import (
    paired_difference,
    perplexity,
    perplexity_change,
    share,
    smallest_difference,
    smallest_perplexity_change,
)
from serving.seams import LabelReport


@dataclass(frozen=True, slots=True)
class LabelledScore:
    """How one variant did on one example.

    Attributes:
        value: 1 or 0 for a label that was met or not; else the sum of the log-probabilities of
            the tokens, in nats.
        count: Tokens that were scored; 1 for a label.
    """

    value: float
    count: int


def accuracy_report(
    dataset: str, scores: Sequence[LabelledScore], reference: Sequence[LabelledScore] | None
) -> LabelReport:
    """Share of labels met, and its difference to the reference's over the same examples.

    Args:
        dataset: Name of the data.
        scores: Of the variant, at least one.
        reference: Of the reference; None if it is the variant.
    """
    met = [score.value for score in scores]
    accuracy = share(round(sum(met)), len(met))
    if reference is None:
        return LabelReport(dataset, accuracy, None, None, None)
    reference_met = [score.value for score in reference]
    disagreement = fmean(a != b for a, b in zip(met, reference_met, strict=True))
    return LabelReport(
        dataset=dataset,
        accuracy=accuracy,
        perplexity=None,
        difference=paired_difference(met, reference_met),
        smallest_difference=smallest_difference(disagreement, len(met)),
    )


def perplexity_report(
    dataset: str, scores: Sequence[LabelledScore], reference: Sequence[LabelledScore] | None
) -> LabelReport:
    """Perplexity, and its change against the reference's; see ``accuracy_report``.

    Passages without a token to score take no part; at least one has some.
    """
    counts = [score.count for score in scores if score.count]
    sums = [score.value for score in scores if score.count]
    found = perplexity(sums, counts)
    if reference is None:
        return LabelReport(dataset, None, found, None, None)
    change = perplexity_change(sums, [score.value for score in reference if score.count], counts)
    return LabelReport(
        dataset=dataset,
        accuracy=None,
        perplexity=found,
        difference=change,
        smallest_difference=smallest_perplexity_change(change),
    )
