"""A judge whose answers a test chooses, and evidence that is written at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np

from serving.config import ModelConfig
from serving.monitor.assessment import Assessment
from serving.monitor.evidence import Evidence, ProbeStep
from serving.quality.dataset import Example, Passage
from serving.quality.labels import LabelledScore
from serving.seams import (
    NO_OPTIONS,
    Comparison,
    EncodedSample,
    Input,
    Origin,
    Sample,
    VariantQuality,
)
from serving.tasks import TASKS

PROBES = tuple(f"probe {number}" for number in range(60))


class FakeJudge:
    """Agrees by ``agreements[variant]``; raises the next of ``failures`` instead."""

    probe_set = "the probes"

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
        self.num_turns = 1
        """In how many turns the probes are asked."""
        self.taken: list[tuple[str, int]] = []
        self.hold_at: tuple[str, int] | None = None
        """Variant and turn that does not come to an end."""
        self.is_held = asyncio.Event()

    def num_probes(self, variant: str) -> int:
        return len(PROBES)

    def num_steps(self, variant: str) -> int:
        return self.num_turns

    async def probe(self, variant: str, number: int) -> ProbeStep:
        self._fail()
        if variant in self.broken:
            raise self.broken[variant]
        if variant in self.busy:
            await self.busy[variant].wait()
        if (variant, number) == self.hold_at:
            self.is_held.set()
            await asyncio.Event().wait()
        self.probed.append(variant)
        comparison = Comparison(agreement=self.agreements.get(variant, 1.0))
        answered = len(PROBES) // self.num_turns
        comparisons = () if variant == "fp32" else (comparison,) * answered
        return ProbeStep(number, answered, comparisons, 0.001 * (number + 1))

    def take(self, variant: str, step: ProbeStep) -> None:
        self.taken.append((variant, step.number))

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


def model_config(**quality: Any) -> ModelConfig:
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


class _AtOnce(Executor):
    """Does everything where it is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class EvidenceAtOnce(Evidence):
    """The real one, in memory, without a thread: nobody has to wait for it in real time."""

    def __init__(self, *models: ModelConfig) -> None:
        super().__init__(Path("nowhere"), models, clock=lambda: self.time)
        self._thread = _AtOnce()
        self.time = 1_000.0


class Assessed:
    """An assessment over a fake judge, and what it was told of comparisons.

    Another one with the same ``evidence`` is the quality process after a restart.
    """

    def __init__(self, evidence: EvidenceAtOnce | None = None, **quality: Any) -> None:
        self.judge = FakeJudge()
        self.seen: list[tuple[str, Origin, Comparison]] = []
        config = model_config(**quality)
        self.evidence = evidence or EvidenceAtOnce(config)
        self.assessment = Assessment(
            config,
            TASKS["classification"],
            self.judge,
            PROBES,
            self.evidence,
            "the data",
            lambda *what: self.seen.append(what),
        )

    async def identify_all(self, **artifacts: str) -> None:
        """Tell what every variant's artifact is; ``VARIANT-1`` of those that are not given."""
        for variant in self.assessment.reference_first:
            artifact = artifacts.get(variant, f"{variant}-1")
            await self.assessment.identify(variant, 1.0, artifact)

    async def probe(self, variant: str) -> None:
        """Let a variant answer what is left of its probes."""
        while (number := self.assessment.next_step(variant)) is not None:
            step = await self.judge.probe(variant, number)
            await self.assessment.take_step(variant, step)

    async def probe_all(self) -> None:
        """Let every variant answer its probes."""
        await self.identify_all()
        for variant in self.assessment.reference_first:
            await self.probe(variant)

    async def of(self, variant: str) -> VariantQuality:
        """The report of one variant."""
        report = await self.assessment.report()
        return next(v for v in report.variants if v.variant == variant)


def sample(variant: str = "int4", given: Input = "a text") -> EncodedSample:
    """A sample of a live request."""
    return EncodedSample("sentiment", variant, given, False, NO_OPTIONS, np.ones(2, np.float32))
