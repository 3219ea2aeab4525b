"""Judges models whose answers are rows: what is compared, and how, their task says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidField
from serving.monitor.background import Background
from serving.monitor.judge import (
    SHADOW_PATIENCE_S,
    UNTIL_IDLE_S,
    NotComparable,
    Probed,
)
from serving.quality.agreement import compare_rows
from serving.quality.dataset import Example, Passage
from serving.quality.labels import LabelledScore
from serving.seams import Comparison, EncodedSample, EncoderJudging, Input, ProbeRows, Sample


class EncoderJudge:
    """See ``Judge``.

    Args:
        background: Asks.
        model: Its public name.
        reference: The variant that the others are judged against.
        judging: How the task compares answers.
        probes: Fixed inputs, at least 11.
    """

    def __init__(
        self,
        background: Background,
        model: str,
        reference: str,
        judging: EncoderJudging,
        probes: Sequence[Input],
    ) -> None:
        self._background = background
        self._model = model
        self._reference = reference
        self._judging = judging
        self._probes = probes
        self._rows: dict[str, NDArray[np.float32]] = {}
        """Each variant's answers to the probes, (probes, width)."""

    async def probe(self, variant: str) -> Probed:
        """See ``Judge.probe``."""
        rows, seconds = [], []
        for probe in self._probes:
            row, elapsed = await self._background.row((self._model, variant), probe, UNTIL_IDLE_S)
            rows.append(row)
            seconds.append(elapsed)
        self._rows[variant] = np.stack(rows)
        comparisons: tuple[Comparison, ...] = ()
        if variant != self._reference:
            reference = self._rows_of(self._reference)
            comparisons = tuple(
                compare_rows(self._judging, row, reference[index], self._probe_rows(variant, index))
                for index, row in enumerate(rows)
            )
        return Probed(comparisons, tuple(seconds))

    def forget(self, variant: str) -> None:
        """See ``Judge.forget``."""
        self._rows.pop(variant, None)

    async def compare(self, sample: Sample) -> Comparison:
        """See ``Judge.compare``."""
        assert isinstance(sample, EncodedSample)
        self._probe_rows(sample.variant)  # nobody need be asked if they are not there
        outcome = await self._background.infer(
            (self._model, self._reference),
            [sample.input],
            SHADOW_PATIENCE_S,
            sample.truncate,
            sample.dimensions,
        )
        probes = self._probe_rows(sample.variant)
        return compare_rows(self._judging, sample.row, outcome.rows[0], probes)

    async def score(
        self, variant: str, examples: Sequence[Example | Passage]
    ) -> list[LabelledScore]:
        """See ``Judge.score``."""
        known = [example for example in examples if isinstance(example, Example)]
        inputs = [example.input for example in known]
        outcome = await self._background.infer((self._model, variant), inputs, UNTIL_IDLE_S)
        unknown = {str(example.label) for example in known} - set(outcome.labels)
        if unknown:
            raise InvalidField(
                f"the data has labels {', '.join(sorted(unknown))}; {self._model!r} has "
                f"{', '.join(outcome.labels)}"
            )
        predicted = [outcome.labels[int(row.argmax())] for row in outcome.rows]
        return [
            LabelledScore(float(label == example.label), 1)
            for label, example in zip(predicted, known, strict=True)
        ]

    def _probe_rows(self, variant: str, leave_out: int | None = None) -> ProbeRows | None:
        if not self._judging.needs_probes:
            return None
        return ProbeRows(self._rows_of(variant), self._rows_of(self._reference), leave_out)

    def _rows_of(self, variant: str) -> NDArray[np.float32]:
        if variant not in self._rows:
            raise NotComparable(f"{self._model}:{variant} has not answered the probes yet")
        return self._rows[variant]
