"""Backends, a board and a chooser, of which a test says what they answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace

from serving.errors import NotReady
from serving.seams import (
    NUM_TRACED,
    AutoChoice,
    CourseStep,
    Description,
    EncoderBackend,
    EngineKind,
    EvaluationProgress,
    GenerationChunk,
    GenerationRequest,
    GenerationSummary,
    GenerationTimings,
    GeneratorBackend,
    InferenceRequest,
    Input,
    Limits,
    ModelQuality,
    Outcome,
    ScoreRequest,
    ServedModel,
    TokenizedText,
    TokenLogprob,
    TokensRequest,
    VariantForm,
    VariantStatus,
    VerdictChange,
)
from serving.seams.auto import AutoView
from tests.unit.fakes.encoder import LABELS, TIMINGS, FakeEngine, FakeTask
from tests.unit.fakes.generator import logprob_of

GENERATION_TIMINGS = GenerationTimings(0.001, 0.002, 0.004, 0.008, 0.016)


class FakeEncoderBackend:
    """Task and engine without a queue; raises ``failure`` if a test sets it."""

    def __init__(self, name: str, labels: tuple[str, ...]) -> None:
        self.task = FakeTask(labels)
        self.engine = FakeEngine(name, self.task.width)
        self.requests: list[InferenceRequest] = []
        self.failure: BaseException | None = None

    async def infer(self, request: InferenceRequest) -> Outcome:
        self.requests.append(request)
        if self.failure is not None:
            raise self.failure
        self.task.check_options(request.options)
        items = self.task.prepare(request.inputs, request.truncate, request.options)
        items += self.task.prepare_ids(request.token_ids, request.truncate)
        rows = self.engine.forward(self.task.collate(items))
        answers = self.task.decode(rows, request.options)
        return Outcome(answers, self.task.labels, sum(item.cost for item in items), TIMINGS)

    async def describe(self) -> Description:
        return describe(self.task)


class FakeGeneratorBackend:
    """Replays ``script`` to every request; an error in it is raised."""

    def __init__(self) -> None:
        self.script: list[GenerationChunk | GenerationSummary | Exception] = [
            GenerationChunk(0, "Hello", (), None, GENERATION_TIMINGS),
            GenerationChunk(0, " there", (), "stop", GENERATION_TIMINGS),
            GenerationSummary(3, 1, 4, GENERATION_TIMINGS),
        ]
        self.requests: list[GenerationRequest] = []
        self.scored: list[ScoreRequest] = []
        self.failure: Exception | None = None
        """Raised by ``score``."""
        self.streams = 0
        """Streams that are neither at their end nor closed."""

    async def stream(
        self, request: GenerationRequest
    ) -> AsyncGenerator[GenerationChunk | GenerationSummary, None]:
        self.requests.append(request)
        self.streams += 1
        try:
            for item in self.script:
                await asyncio.sleep(0)
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.streams -= 1

    async def score(self, request: ScoreRequest) -> tuple[TokenLogprob, ...]:
        """``logprob_of`` the continuation's tokens, of a text its bytes."""
        self.scored.append(request)
        if self.failure is not None:
            raise self.failure
        continuation = request.continuation
        tokens = continuation.encode() if isinstance(continuation, str) else continuation
        return tuple(logprob_of(token, NUM_TRACED) for token in tokens)

    async def tokens(self, request: TokensRequest) -> TokenizedText:
        """One token per byte."""
        if self.failure is not None:
            raise self.failure
        return TokenizedText(tuple(request.text.encode()), (), request.text, 128)

    async def describe(self) -> Description:
        return describe_generator()


class FakeChooser:
    """Gives every request ``choice``; an error is raised."""

    def __init__(self, choice: AutoChoice | Exception) -> None:
        self.choice = choice
        self.asked: list[tuple[str, Limits]] = []

    async def choose(self, model: str, limits: Limits) -> AutoChoice:
        self.asked.append((model, limits))
        if isinstance(self.choice, Exception):
            raise self.choice
        return self.choice

    async def explain(self, model: str, limits: Limits) -> AutoView:
        raise NotReady("nothing is known of the variants")


class SilentBoard:
    """The quality process is not there; a test has it answer what it wants to hear."""

    async def report(self) -> tuple[ModelQuality, ...]:
        raise NotReady("nothing is known")

    async def history(self, since: float) -> Mapping[str, tuple[VerdictChange, ...]]:
        raise NotReady("nothing is remembered")

    async def course(self, model: str, since: float, step_s: float) -> tuple[CourseStep, ...]:
        raise NotReady("nothing is remembered")

    async def inputs(self, model: str) -> tuple[Input, ...]:
        raise NotReady("nothing is kept")

    async def evaluate(self, model: str) -> EvaluationProgress:
        raise NotReady("nothing is evaluated")


class FakeBackends:
    """A backend per variant of a catalog; all are ready but those in ``reasons``."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        names = [(model, variant) for model in models for variant in model.variants]
        self.names = [(model.name, variant) for model, variant in names]
        self.encoders = {
            (model.name, variant): _encoder(model, variant)
            for model, variant in names
            if model.kind == "encoder"
        }
        self.generators = {
            (model.name, variant): FakeGeneratorBackend()
            for model, variant in names
            if model.kind == "generator"
        }
        self.reasons: dict[tuple[str, str], str] = {}

    def encoder(self, model: str, variant: str) -> EncoderBackend:
        return self.encoders[model, variant]

    def generator(self, model: str, variant: str) -> GeneratorBackend:
        return self.generators[model, variant]

    async def statuses(self) -> list[VariantStatus]:
        return [
            VariantStatus(*name, False, "failed" in self.reasons[name], self.reasons[name], 0, None)
            if name in self.reasons
            else VariantStatus(*name, True, False, "", 1, await self._describe(name))
            for name in self.names
        ]

    async def _describe(self, name: tuple[str, str]) -> Description:
        if name in self.encoders:
            return await self.encoder(*name).describe()
        return await self.generator(*name).describe()


def served_model(
    name: str, task: str, variants: Sequence[str], default: str, reference: str
) -> ServedModel:
    """A model whose variants are recipes of the same name on torch."""
    kind: EngineKind = "generator" if task == "generation" else "encoder"
    forms = {variant: VariantForm(recipe=variant, runtime="torch") for variant in variants}
    return ServedModel(name, task, kind, forms, default, reference)


def describe(task: FakeTask) -> Description:
    """What a replica with ``task`` says of itself."""
    return Description(
        artifact="0123456789abcdef",
        device="cpu",
        isa="avx2",
        weights_bytes=100,
        disk_bytes=90,
        resident_bytes=200,
        private_bytes=150,
        peak_bytes=300,
        load_seconds=1.5,
        max_tokens=task.max_tokens,
        width=task.width,
        labels=task.labels,
    )


def describe_generator() -> Description:
    """What a replica of a generator says of itself."""
    return replace(describe(FakeTask()), max_tokens=1_000, width=0, labels=(), kv_cache_bytes=4_000)


def _encoder(model: ServedModel, variant: str) -> FakeEncoderBackend:
    labels = LABELS if model.task == "classification" else ()
    return FakeEncoderBackend(f"{model.name}:{variant}", labels)
