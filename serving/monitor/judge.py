"""How answers of a kind of model are got and compared: the seam between encoders and generators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from serving.quality.dataset import Example, Passage
from serving.quality.labels import LabelledScore
from serving.seams import Comparison, Sample

UNTIL_IDLE_S = float("inf")
"""Probes and labelled data wait for an idle replica as long as it takes."""

SHADOW_PATIENCE_S = 5.0
"""A sampled request does not; the next one says as much."""


class NotComparable(Exception):
    """A sample cannot be compared yet, or not at all; the message says why."""


@dataclass(frozen=True, slots=True)
class Probed:
    """What one variant did with the probes.

    Attributes:
        comparisons: One per probe with the reference's answer; empty for the reference itself.
        seconds: What each answer took, without the queue.
    """

    comparisons: tuple[Comparison, ...]
    seconds: tuple[float, ...]


class Judge(Protocol):
    """Compares the variants of one model with its reference; asks in the background only."""

    async def probe(self, variant: str) -> Probed:
        """Have a variant answer every probe; the reference comes before all others.

        Raises:
            RequestError: The variant or the reference does not answer.
        """

    def forget(self, variant: str) -> None:
        """Drop what a variant answered before it was deployed again."""

    async def compare(self, sample: Sample) -> Comparison:
        """Have the reference answer a sampled request.

        Raises:
            NotComparable: The probes that it is compared against are not answered yet.
            QueueFull: The reference has had other work for ``SHADOW_PATIENCE_S``.
            RequestError: The reference does not answer.
        """

    async def score(
        self, variant: str, examples: Sequence[Example | Passage]
    ) -> list[LabelledScore]:
        """Have a variant answer labelled examples.

        Raises:
            RequestError: The variant does not answer, or an example does not fit the model.
        """
