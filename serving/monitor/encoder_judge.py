"""Judges models whose answers are rows: what is compared, and how, their task says."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidField
from serving.monitor.background import Background
from serving.monitor.evidence import ProbeStep, digest
from serving.monitor.judge import SHADOW_PATIENCE_S, UNTIL_IDLE_S, NotComparable
from serving.quality.agreement import compare_rows
from serving.quality.dataset import Example, Passage
from serving.quality.labels import LabelledScore
from serving.seams import Comparison, EncodedSample, EncoderJudging, Input, ProbeRows, Sample

BATCH = 128
"""Probes of one request: more would hold the background up for long."""

TIMED_PROBES = 8
"""Probes that are asked again one by one, since a batch does not tell what a single one takes."""


class EncoderJudge:
    """See ``Judge``. All probes are asked in batches, then some of them singly, for their time.

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
        self._num_batches = math.ceil(len(probes) / BATCH)
        self._rows: dict[str, list[NDArray[np.float32]]] = {}
        """Each variant's answers to the probes, (batch, width) each."""
        self.probe_set = digest("encoder", probes)

    def num_probes(self, variant: str) -> int:
        """See ``Judge.num_probes``."""
        return len(self._probes)

    def num_steps(self, variant: str) -> int:
        """See ``Judge.num_steps``."""
        return self._num_batches + TIMED_PROBES

    async def probe(self, variant: str, number: int) -> ProbeStep:
        """See ``Judge.probe``."""
        if number >= self._num_batches:
            return ProbeStep(number, 0, (), await self._time(variant, number - self._num_batches))
        batch = self._probes[number * BATCH : (number + 1) * BATCH]
        outcome = await self._background.infer((self._model, variant), batch, UNTIL_IDLE_S)
        comparisons: tuple[Comparison, ...] = ()
        if variant != self._reference and number == self._num_batches - 1:
            rows = np.concatenate([*self._rows.get(variant, ()), outcome.rows])
            comparisons = self._compare_all(rows)
        return ProbeStep(number, len(batch), comparisons, None, outcome.rows)

    def take(self, variant: str, step: ProbeStep) -> None:
        """See ``Judge.take``."""
        if step.rows is not None:
            self._rows.setdefault(variant, []).append(step.rows)

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
            sample.options,
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

    async def _time(self, variant: str, number: int) -> float:
        """Seconds of one probe, of those that are evenly spread over all of them."""
        probe = self._probes[number * len(self._probes) // TIMED_PROBES]
        _, seconds = await self._background.row((self._model, variant), probe, UNTIL_IDLE_S)
        return seconds

    def _compare_all(self, rows: NDArray[np.float32]) -> tuple[Comparison, ...]:
        reference = self._rows_of(self._reference)
        return tuple(
            compare_rows(
                self._judging,
                row,
                reference[index],
                ProbeRows(rows, reference, index) if self._judging.needs_probes else None,
            )
            for index, row in enumerate(rows)
        )

    def _probe_rows(self, variant: str) -> ProbeRows | None:
        if not self._judging.needs_probes:
            return None
        return ProbeRows(self._rows_of(variant), self._rows_of(self._reference))

    def _rows_of(self, variant: str) -> NDArray[np.float32]:
        batches = self._rows.get(variant, [])
        if len(batches) < self._num_batches:
            raise NotComparable(f"{self._model}:{variant} has not answered the probes yet")
        return np.concatenate(batches)
