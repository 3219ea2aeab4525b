"""Judges models that generate text: the reference scores what a variant wrote."""

from __future__ import annotations

from collections.abc import Sequence

from serving.monitor.background import Background
from serving.monitor.evidence import ProbeStep, digest
from serving.monitor.judge import SHADOW_PATIENCE_S, UNTIL_IDLE_S, NotComparable
from serving.quality.dataset import Example, Passage
from serving.quality.labels import LabelledScore
from serving.quality.token_agreement import compare_tokens
from serving.seams import Comparison, GeneratedSample, Sample, Trace

PROBE_TOKENS = 16
"""Tokens that each probe is continued by: enough to see a variant leave the reference's way, and
few, since all probes of four variants on two cores take about a minute as it is."""

REFERENCE_PROBES = 8
"""The reference's own answers are compared with nothing; some are asked for, for their time."""


class GeneratorJudge:
    """See ``Judge``. Each probe is a turn of its own.

    Args:
        background: Asks.
        model: Its public name.
        reference: The variant that the others are judged against.
        probes: Fixed prompts.
    """

    def __init__(
        self, background: Background, model: str, reference: str, probes: Sequence[str]
    ) -> None:
        self._background = background
        self._model = model
        self._reference = reference
        self._probes = probes
        self.probe_set = digest("generator", PROBE_TOKENS, probes)

    def num_probes(self, variant: str) -> int:
        """See ``Judge.num_probes``."""
        if variant == self._reference:
            return min(REFERENCE_PROBES, len(self._probes))
        return len(self._probes)

    def num_steps(self, variant: str) -> int:
        """See ``Judge.num_steps``."""
        return self.num_probes(variant)

    async def probe(self, variant: str, number: int) -> ProbeStep:
        """See ``Judge.probe``."""
        trace, seconds = await self._background.generate(
            (self._model, variant), self._probes[number], PROBE_TOKENS, UNTIL_IDLE_S
        )
        if variant == self._reference:
            return ProbeStep(number, 1, (), seconds)
        return ProbeStep(number, 1, (await self._compare(trace, UNTIL_IDLE_S),), seconds)

    def take(self, variant: str, step: ProbeStep) -> None:
        """Nothing is needed."""

    def forget(self, variant: str) -> None:
        """Nothing is kept."""

    async def compare(self, sample: Sample) -> Comparison:
        """See ``Judge.compare``."""
        assert isinstance(sample, GeneratedSample)
        return await self._compare(sample.trace, SHADOW_PATIENCE_S)

    async def score(
        self, variant: str, examples: Sequence[Example | Passage]
    ) -> list[LabelledScore]:
        """See ``Judge.score``."""
        scores = []
        for passage in examples:
            assert isinstance(passage, Passage)
            tokens = await self._background.score(
                (self._model, variant), passage.prompt, passage.continuation, UNTIL_IDLE_S
            )
            scores.append(LabelledScore(sum(token.logprob for token in tokens), len(tokens)))
        return scores

    async def _compare(self, trace: Trace, patience_s: float) -> Comparison:
        if not trace.tokens:
            raise NotComparable("nothing was generated")
        scored = await self._background.score(
            (self._model, self._reference),
            trace.prompt,
            tuple(token.token for token in trace.tokens),
            patience_s,
        )
        return compare_tokens(trace.tokens, scored)
