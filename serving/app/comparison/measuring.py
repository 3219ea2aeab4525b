"""What the process of one variant does: opens it, answers, scores, continues, says what it took.

It imports no more than a replica does, since what it occupies is a figure of the comparison.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from serving.artifacts import Artifact
from serving.config import ModelConfig, ServerConfig, VariantConfig
from serving.cores import UnsharedCores
from serving.errors import ConfigError
from serving.machine.cores import available_cores
from serving.machine.process_memory import all_resident_bytes, peak_all_resident_bytes
from serving.replica.encoder.batching import split_by_cost
from serving.replica.encoder.loading import MAX_BATCH_TOKENS, OpenedEncoder, open_encoder
from serving.replica.generator.draft import Draft
from serving.replica.generator.loading import open_generator
from serving.seams import (
    GREEDY,
    DeviceName,
    EncoderTask,
    GenerationTask,
    GeneratorEngine,
    Input,
    TokenLogprob,
    TokenRequest,
)
from serving.tasks import TASKS

SCORED = replace(GREEDY, logprobs=1)


@dataclass(frozen=True, slots=True)
class Opening:
    """What a process shall open.

    Attributes:
        model: The model's configuration.
        variant: The variant's; a generator gets a single slot, since it continues one text at once.
        device: Where it runs.
        artifact: What it is opened from.
        draft: What proposes tokens to it; None if nothing does.
    """

    model: ModelConfig
    variant: VariantConfig
    device: DeviceName
    artifact: Artifact
    draft: Draft | None = None

    @property
    def disk_bytes(self) -> int:
        """Of all artifacts that it is opened from."""
        return self.artifact.size + (0 if self.draft is None else self.draft.artifact.size)


@dataclass(frozen=True, slots=True)
class EncoderAlone:
    """An encoder that has answered once.

    Attributes:
        opened: Its task and engine.
        max_batch_tokens: Most tokens of a batch, padding included.
    """

    opened: OpenedEncoder
    max_batch_tokens: int

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, slots=True)
class GeneratorAlone:
    """A generator that has taken its first steps.

    Attributes:
        name: Model and variant, for messages.
        task: Makes tokens.
        engine: Its calls run in ``runner``'s event loop.
    """

    name: str
    task: GenerationTask
    engine: GeneratorEngine
    runner: asyncio.Runner

    def close(self) -> None:
        """End the engine's threads."""
        self.engine.close()
        self.runner.close()


OpenedVariant = EncoderAlone | GeneratorAlone


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to some inputs.

    Attributes:
        rows: float32 (inputs, width).
        seconds: To tokenize and answer all of them.
    """

    rows: NDArray[np.float32]
    seconds: float


@dataclass(frozen=True, slots=True)
class Continued:
    """One text that was continued.

    Attributes:
        first_token_s: From the request to its first token.
        tokens_per_s: From there to its last.
    """

    first_token_s: float
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Occupied:
    """Memory, in bytes. On CUDA, resident, private and peak are what torch has allocated there.

    Attributes:
        weights_bytes: As the runtime keeps them.
        resident_bytes: All of the process that is in memory, mapped files' pages included, whoever
            else has them mapped: what a process takes that is the only one.
        private_bytes: The part that no other process can share.
        peak_bytes: The largest that ``resident_bytes`` has been since the process started.
    """

    weights_bytes: int
    resident_bytes: int
    private_bytes: int
    peak_bytes: int


def open_variant(opening: Opening) -> OpenedVariant:
    """Open a variant and run it once.

    Raises:
        ConfigError: This machine cannot run it.
    """
    model, variant, device = opening.model, opening.variant, opening.device
    if TASKS[model.task].kind == "encoder":
        opened = open_encoder(model, variant, device, opening.artifact)
        return EncoderAlone(opened, variant.max_batch_tokens or MAX_BATCH_TOKENS[device])
    alone = variant.model_copy(update={"max_running_requests": 1})
    runner = asyncio.Runner()
    cores = UnsharedCores(variant.threads or available_cores())
    task, engine = runner.run(
        open_generator(model, alone, device, opening.artifact, ServerConfig(), cores, opening.draft)
    )
    return GeneratorAlone(f"{model.name}:{variant.name}", task, engine, runner)


def labels(alone: EncoderAlone) -> tuple[str, ...]:
    """Name of each column of a classification; empty for other tasks."""
    return alone.opened.task.labels


def answer(alone: EncoderAlone, inputs: Sequence[Input]) -> Answers:
    """Answer every input, in batches as a replica would make them; over-long ones are cut."""
    task: EncoderTask = alone.opened.task
    started = time.perf_counter()
    items = task.prepare(inputs, True)
    rows = np.empty((len(inputs), task.width), np.float32)
    for batch in split_by_cost([item.cost for item in items], alone.max_batch_tokens):
        rows[batch] = alone.opened.engine.forward(task.collate([items[index] for index in batch]))
    seconds = time.perf_counter() - started
    return Answers(task.decode(rows), seconds)


def tokens_of(
    alone: GeneratorAlone, passages: Sequence[tuple[str, str]]
) -> list[tuple[tuple[int, ...], int]]:
    """Token ids of each prompt with its continuation, and how many of them are the prompt's.

    Raises:
        ConfigError: One is longer than the variant takes.
    """
    found = []
    for number, (prompt, continuation) in enumerate(passages, 1):
        first, rest = alone.task.encode_continuation(prompt, continuation)
        if len(first) + len(rest) > alone.engine.max_tokens:
            raise ConfigError(
                f"text {number} has {len(first) + len(rest):,} tokens; {alone.name} takes "
                f"{alone.engine.max_tokens:,}. Cut it, or raise max_tokens"
            )
        found.append((first + rest, len(first)))
    return found


def score(
    alone: GeneratorAlone, texts: Sequence[tuple[tuple[int, ...], int]]
) -> list[tuple[TokenLogprob, ...]]:
    """Score each text's tokens behind its prompt; the very first token of a text follows nothing.

    Args:
        alone: The generator.
        texts: Token ids, and how many of them are the prompt.

    Raises:
        ConfigError: The engine cannot score.
    """
    if not alone.engine.can_score:
        raise ConfigError(f"{alone.name} runs on what cannot say how probable given tokens are")
    return [alone.runner.run(_score(alone.engine, *text)) for text in texts]


async def _score(
    engine: GeneratorEngine, tokens: tuple[int, ...], prompt: int
) -> tuple[TokenLogprob, ...]:
    start = max(prompt, 1)
    if start >= len(tokens):
        return ()
    request = TokenRequest(tokens, 0, frozenset(), SCORED, logprobs_from=start)
    async with aclosing(engine.generate(request)) as stream:
        return (await anext(stream)).prompt


def continue_text(alone: GeneratorAlone, prompt: tuple[int, ...], new_tokens: int) -> Continued:
    """Continue one text greedily by so many tokens, at least 2; nothing ends it before."""
    return alone.runner.run(_continue(alone.engine, prompt, new_tokens))


async def _continue(engine: GeneratorEngine, prompt: tuple[int, ...], new_tokens: int) -> Continued:
    request = TokenRequest(prompt, new_tokens, frozenset(), GREEDY)
    started = time.perf_counter()
    async with aclosing(engine.generate(request)) as stream:
        moments = [time.perf_counter() async for _ in stream]
    speed = (len(moments) - 1) / (moments[-1] - moments[0])
    return Continued(moments[0] - started, speed)


def occupied(alone: OpenedVariant) -> Occupied:
    """What the process occupies now, and has occupied at most."""
    engine = alone.opened.engine if isinstance(alone, EncoderAlone) else alone.engine
    footprint = engine.footprint()
    on_cpu = engine.device == "cpu"
    return Occupied(
        weights_bytes=footprint.weights_bytes,
        resident_bytes=all_resident_bytes() if on_cpu else footprint.resident_bytes,
        private_bytes=footprint.private_bytes,
        peak_bytes=peak_all_resident_bytes() if on_cpu else footprint.peak_bytes,
    )
