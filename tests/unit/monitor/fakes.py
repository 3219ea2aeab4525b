"""A judge whose answers a test chooses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np

from serving.config import ModelConfig
from serving.monitor.assessment import Assessment
from serving.monitor.judge import Probed
from serving.quality.dataset import Example, Passage
from serving.quality.labels import LabelledScore
from serving.seams import Comparison, EncodedSample, Input, Origin, Sample
from serving.tasks import TASKS

PROBES = tuple(f"probe {number}" for number in range(60))


class FakeJudge:
    """Agrees by ``agreements[variant]``; raises the next of ``failures`` instead."""

    def __init__(self) -> None:
        self.agreements: dict[str, float] = {}
        self.failures: list[Exception] = []
        self.probed: list[str] = []
        self.compared: list[Sample] = []
        self.forgotten: list[str] = []
        self.broken: dict[str, Exception] = {}
        """Raised by ``probe``, by variant."""
        self.busy: dict[str, asyncio.Event] = {}
        """What ``probe`` of a variant waits for."""
        self.scored: list[tuple[str, int]] = []
        """Variants that were asked to score, and how many examples."""
        self.cannot_score: dict[str, Exception] = {}
        self.on_score: Callable[[str], None] = lambda variant: None
        self.gate = asyncio.Event()
        self.gate.set()

    async def probe(self, variant: str) -> Probed:
        self._fail()
        if variant in self.broken:
            raise self.broken[variant]
        if variant in self.busy:
            await self.busy[variant].wait()
        self.probed.append(variant)
        comparison = Comparison(agreement=self.agreements.get(variant, 1.0))
        seconds = tuple(0.001 * number for number in range(1, 101))
        return Probed(() if variant == "fp32" else (comparison,) * len(PROBES), seconds)

    def forget(self, variant: str) -> None:
        self.forgotten.append(variant)

    async def compare(self, sample: Sample) -> Comparison:
        await self.gate.wait()
        self._fail()
        self.compared.append(sample)
        return Comparison(agreement=self.agreements.get(sample.variant, 1.0))

    async def score(
        self, variant: str, examples: Sequence[Example | Passage]
    ) -> list[LabelledScore]:
        self._fail()
        self.scored.append((variant, len(examples)))
        self.on_score(variant)
        if variant in self.cannot_score:
            raise self.cannot_score[variant]
        return [LabelledScore(self.agreements.get(variant, 1.0), 1) for _ in examples]

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)


def model_config(**quality: object) -> ModelConfig:
    """A classifier in three variants."""
    return ModelConfig.model_validate(
        {
            "name": "sentiment",
            "task": "classification",
            "source": "nowhere",
            "variants": ["int4", "fp32", "bf16"],
            "quality": quality,
        }
    )


class Assessed:
    """An assessment over a fake judge, and what it was told of comparisons."""

    def __init__(self, **quality: object) -> None:
        self.judge = FakeJudge()
        self.seen: list[tuple[str, Origin, Comparison]] = []
        self.assessment = Assessment(
            model_config(**quality),
            TASKS["classification"],
            self.judge,
            PROBES,
            lambda *what: self.seen.append(what),
        )

    async def probe_all(self) -> None:
        """Let every variant answer its probes."""
        for variant in self.assessment.reference_first:
            self.assessment.set_probed(variant, 1.0, await self.judge.probe(variant))

    def of(self, variant: str):  # type: ignore[no-untyped-def]
        """The report of one variant."""
        return next(v for v in self.assessment.report().variants if v.variant == variant)


def sample(variant: str = "int4", given: Input = "a text") -> EncodedSample:
    """A sample of a live request."""
    return EncodedSample("sentiment", variant, given, False, None, np.ones(2, np.float32))
