"""How answers of a kind of model are got and compared: the seam between encoders and generators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from serving.monitor.evidence import ProbeStep
from serving.quality.dataset import Example, Passage
from serving.quality.labels import LabelledScore
from serving.seams import Comparison, Sample

UNTIL_IDLE_S = float("inf")
"""Probes and labelled data wait for an idle replica as long as it takes."""

SHADOW_PATIENCE_S = 5.0
"""A sampled request does not; the next one says as much."""


class NotComparable(Exception):
    """A sample cannot be compared yet, or not at all; the message says why."""


class Judge(Protocol):
    """Compares the variants of one model with its reference; asks in the background only.

    Attributes:
        probe_set: Digest of all that decides what comes of the probes.
    """

    probe_set: str

    def num_probes(self, variant: str) -> int:
        """How many probes a variant is asked."""

    def num_steps(self, variant: str) -> int:
        """In how many turns it is asked; others may be asked between two of them."""

    async def probe(self, variant: str, number: int) -> ProbeStep:
        """Have a variant answer the probes of one turn; the reference comes before all others.

        Args:
            variant: Whom to ask.
            number: Of the turn, from 0; those before it have been taken.

        Raises:
            RequestError: The variant or the reference does not answer.
        """

    def take(self, variant: str, step: ProbeStep) -> None:
        """Remember what later comparisons need of a turn of probing."""

    def forget(self, variant: str) -> None:
        """Drop what another artifact of a variant answered."""

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
