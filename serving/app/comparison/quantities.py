"""A variant's line of the comparison: figures, each beside the reference's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from serving.app.comparison.measuring import Answers, Continued, Occupied
from serving.errors import ConfigError
from serving.quality.dataset import Example
from serving.quality.measures import summarise
from serving.quality.statistics import (
    mean_of_shares,
    paired_difference,
    ratio_of_rounds,
    share,
)
from serving.quality.token_scores import Texts, perplexity_of, perplexity_ratio, same_top_token
from serving.seams import Comparison, EncoderJudging, Estimate


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its 95 % interval, where chance has a part in it."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Quantity:
    """One cell of the table.

    Attributes:
        figure: In base units: seconds, bytes, shares.
        ratio: To the reference's; None of what is a comparison with the reference itself. The
            reference's own is 1.
    """

    figure: Figure
    ratio: Figure | None = None


SAME = Figure(1.0)

Quantities = Mapping[str, Quantity]
"""By name; a name's end says the unit: ``_s``, ``_bytes``, ``_per_s``, ``_points``."""


@dataclass(frozen=True, slots=True)
class Row:
    """One variant's line.

    Attributes:
        variant: Its name; likewise ``recipe``, ``runtime``.
        quantities: What was found.
    """

    variant: str
    recipe: str
    runtime: str
    quantities: Quantities


def figure_of(estimate: Estimate) -> Figure:
    """The same without its count."""
    return Figure(estimate.value, estimate.low, estimate.high)


def exact(value: float, reference: float) -> Quantity:
    """A figure in which chance has no part worth an interval, with its ratio."""
    return Quantity(Figure(value), Figure(value / reference) if reference else None)


def of_reference(found: Quantities) -> dict[str, Quantity]:
    """The same of the reference beside itself, where nothing is left to chance."""
    return {
        name: Quantity(Figure(one.figure.value)) if one.ratio is None else replace(one, ratio=SAME)
        for name, one in found.items()
    }


def accuracy(met: Sequence[bool], reference: Sequence[bool]) -> dict[str, Quantity]:
    """Share of labels met, its ratio to the reference's, and the difference in points.

    The ratio's interval is that of the paired difference over the reference's accuracy, which is
    taken for certain: what its own uncertainty adds is of second order where the ratio is near 1.

    Args:
        met: Of each example, whether the variant met the label.
        reference: Likewise the reference, of the same examples.
    """
    difference = paired_difference(met, reference)
    ends = (difference.value, difference.low, difference.high)
    base = float(np.mean(reference))
    return {
        "accuracy": Quantity(
            figure_of(share(sum(met), len(met))),
            Figure(*(1 + end / base for end in ends)) if base else None,
        ),
        "difference_points": Quantity(Figure(*(100 * end for end in ends))),
    }


def labels_met(
    rows: NDArray[np.float32], labels: Sequence[str], examples: Sequence[Example]
) -> list[bool]:
    """Of each example, whether the most probable class is its label.

    Raises:
        ConfigError: The model has no such label.
    """
    unknown = {str(example.label) for example in examples} - set(labels)
    if unknown:
        raise ConfigError(
            f"the data has labels {', '.join(sorted(unknown))}; the model has {', '.join(labels)}"
        )
    predicted = [labels[index] for index in rows.argmax(axis=1)]
    return [label == example.label for label, example in zip(predicted, examples, strict=True)]


def agreement(
    rows: NDArray[np.float32], reference: NDArray[np.float32], judging: EncoderJudging
) -> dict[str, Quantity]:
    """Means over the inputs of how far the answers agree with the reference's."""
    comparisons = [
        Comparison(
            # An agreement that is about probes says nothing of these inputs.
            agreement=1 if judging.needs_probes else judging.agreement(row, expected, None),
            measures=judging.measures(row, expected),
        )
        for row, expected in zip(rows, reference, strict=True)
    ]
    found = summarise(comparisons)
    if not judging.needs_probes:
        shares = mean_of_shares([comparison.agreement for comparison in comparisons])
        found = {"agreement": shares, **found}
    return {name: Quantity(figure_of(estimate)) for name, estimate in found.items()}


def answering_time(parts: Sequence[Answers], reference: Sequence[Answers]) -> dict[str, Quantity]:
    """Seconds for all inputs together; the ratio is of parts that both answered in turns."""
    seconds = [part.seconds for part in parts]
    return {"time_s": Quantity(Figure(sum(seconds)), _ratio(seconds, reference, "seconds"))}


def continuing_time(
    rounds: Sequence[Continued], reference: Sequence[Continued]
) -> dict[str, Quantity]:
    """Geometric means over rounds; the ratios are of rounds in which both took their turns."""
    return {
        name: Quantity(
            Figure(_geometric_mean(getattr(one, name) for one in rounds)),
            _ratio([getattr(one, name) for one in rounds], reference, name),
        )
        for name in ("first_token_s", "tokens_per_s")
    }


def probability(texts: Texts, reference: Texts) -> dict[str, Quantity]:
    """Perplexity over all tokens, and how often the most probable token is the reference's."""
    return {
        "perplexity": Quantity(
            figure_of(perplexity_of(texts)), figure_of(perplexity_ratio(texts, reference))
        ),
        "same_top_token": Quantity(figure_of(same_top_token(texts, reference))),
    }


def sizes(
    memory: Occupied, disk_bytes: int, reference: Occupied, reference_disk_bytes: int
) -> dict[str, Quantity]:
    """Memory and disk, with exact ratios."""
    names = ("resident_bytes", "peak_bytes", "private_bytes", "weights_bytes")
    found = {name: exact(getattr(memory, name), getattr(reference, name)) for name in names}
    return {**found, "disk_bytes": exact(disk_bytes, reference_disk_bytes)}


def _ratio(
    values: Sequence[float], reference: Sequence[Answers] | Sequence[Continued], name: str
) -> Figure:
    return figure_of(ratio_of_rounds(values, [getattr(one, name) for one in reference]))


def _geometric_mean(values: Iterable[float]) -> float:
    return float(np.exp(np.mean(np.log(list(values)))))
