"""What the routes call, and what they get."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from serving.seams.engine import DeviceName, EngineKind
from serving.seams.generator import FinishReason, Sampling, TokenLogprob

NUM_TRACED = 20
"""Most probable tokens of each place that a trace and a score report."""


Input = str | tuple[str, str]
"""What one answer is about: a text, or a pair such as a query and a document."""


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """What a route asks of a backend.

    Attributes:
        inputs: One answer each.
        truncate: Cut over-long inputs to the model's limit instead of refusing them.
        dimensions: Leading dimensions of an embedding to keep; None keeps all.
        timeout_s: Seconds that may pass until the answer.
        background: Nobody waits for it: it is refused with QueueFull while the replica has other
            work, and counts in no metric of requests. What it takes of an engine (its queue, its
            places, its cache) shows in the gauges of the engine.
    """

    inputs: tuple[Input, ...]
    truncate: bool
    dimensions: int | None
    timeout_s: float
    background: bool = False


@dataclass(frozen=True, slots=True)
class Timings:
    """Where one request's time went, in seconds.

    ``queue`` runs from the end of tokenizing to the start of the first forward pass that serves
    the request, ``forward`` from there to the end of the last one. ``total`` is at least their sum.
    """

    queue: float
    tokenize: float
    forward: float
    total: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to one request with its timings.

    Attributes:
        rows: float32 (inputs, width): embeddings, probabilities of labels, scores.
        labels: Name of each column of a classification; empty for other tasks.
        tokens: Number of tokens of all inputs, special tokens included.
        timings: Where the time went inside the replica.
    """

    rows: NDArray[np.float32]
    labels: tuple[str, ...]
    tokens: int
    timings: Timings


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat.

    Attributes:
        role: ``system``, ``user`` or ``assistant``.
        content: What was said.
    """

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What a route asks of a backend that generates.

    Attributes:
        prompts: Texts to continue; empty for a chat.
        messages: The chat to answer; empty unless it is one.
        n: Continuations of each prompt; choice ``i * n + j`` is the j-th of prompt i, and is
            sampled with ``sampling.seed + j``.
        max_tokens: Most new tokens of each; None generates until the model stops or its context
            is full.
        sampling: How tokens are chosen.
        stop: Texts that end a continuation; they are left out of it.
        echo: Put the prompt before its continuation.
        stream: Send each piece as it comes; otherwise each choice comes as a single chunk.
        first_token_timeout_s: Seconds that may pass until the first token of every choice.
        timeout_s: Seconds that may pass until the end.
        trace: Index of a choice to report token by token in ``GenerationSummary.traces``, too.
        background: See ``InferenceRequest``.
    """

    prompts: tuple[str, ...]
    messages: tuple[Message, ...]
    n: int
    max_tokens: int | None
    sampling: Sampling
    stop: tuple[str, ...]
    echo: bool
    stream: bool
    first_token_timeout_s: float
    timeout_s: float
    trace: int | None = None
    background: bool = False


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Asks a generator how probable given tokens are, in one forward pass.

    Attributes:
        prompt: What they follow, as token ids or as a text; may be empty.
        continuation: What is scored; of the same kind as ``prompt``. Without a prompt the first
            token has nothing to follow and gets no score.
        timeout_s: Seconds that may pass until the answer.
        background: See ``InferenceRequest``.
    """

    prompt: tuple[int, ...] | str
    continuation: tuple[int, ...] | str
    timeout_s: float
    background: bool = False


@dataclass(frozen=True, slots=True)
class Trace:
    """What a generator wrote after a prompt, token by token.

    Attributes:
        prompt: Token ids.
        tokens: The first of those that were generated, each with the ``NUM_TRACED`` most probable
            ones in its place.
    """

    prompt: tuple[int, ...]
    tokens: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True)
class TextLogprob:
    """A token as text, with its log-probability and its most probable rivals.

    Attributes:
        text: What it adds; for a part of a character, the replacement character.
        raw: Its bytes.
        logprob: Natural log of its probability; None for the first token of a prompt.
        top: Triples of text, bytes and log-probability, the most probable first.
    """

    text: str
    raw: bytes
    logprob: float | None
    top: tuple[tuple[str, bytes, float], ...]


@dataclass(frozen=True, slots=True)
class GenerationTimings:
    """Where the time of one request went, in seconds; of several choices, the longest.

    Attributes:
        queue: From tokenized to the first step that worked on it.
        tokenize: To render the chat template and tokenize.
        prefill: From the first step to the first token.
        decode: From the first token to the last.
        total: From its arrival at the replica.
    """

    queue: float
    tokenize: float
    prefill: float
    decode: float
    total: float


@dataclass(frozen=True, slots=True)
class GenerationChunk:
    """A piece of one choice.

    Attributes:
        choice: Its index.
        text: What is new; may be empty.
        logprobs: The new tokens one by one, if the request asked for log-probabilities.
        finish: Why the choice ends here; None if it goes on.
        timings: Up to now.
    """

    choice: int
    text: str
    logprobs: tuple[TextLogprob, ...]
    finish: FinishReason | None
    timings: GenerationTimings


@dataclass(frozen=True, slots=True)
class GenerationSummary:
    """What comes after the last chunk.

    Attributes:
        prompt_tokens: Of all prompts, each counted once.
        cached_tokens: Prompt tokens that were in the cache already.
        output_tokens: Of all choices, the ones that ended them included.
        timings: Of the whole request.
        traces: That of the traced choice, if the request asked for one; else none.
    """

    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    timings: GenerationTimings
    traces: tuple[Trace, ...] = ()


@dataclass(frozen=True, slots=True)
class Description:
    """What one replica says of the variant that it holds.

    Attributes:
        artifact: Id of the artifact that it was opened from.
        weights_bytes: As of ``Footprint``, like the other sizes.
        disk_bytes: Size of the artifact's files.
        max_tokens: Most tokens of a text, or of a prompt with its continuation.
        width: Numbers of an embedding, or classes; 0 for a generator.
        kv_cache_bytes: Size of a generator's cache of keys and values, not part of
            ``weights_bytes``; else 0.
    """

    artifact: str
    device: DeviceName
    isa: str
    weights_bytes: int
    disk_bytes: int
    resident_bytes: int
    private_bytes: int
    peak_bytes: int
    load_seconds: float
    max_tokens: int
    width: int
    labels: tuple[str, ...]
    kv_cache_bytes: int = 0


@runtime_checkable
class EncoderBackend(Protocol):
    """What the routes call of an encoder; local in a replica, remote in the gateway."""

    async def infer(self, request: InferenceRequest) -> Outcome:
        """Answer every input of ``request``.

        Raises:
            RequestError: InvalidField, QueueFull, NotReady or DeadlineExceeded.
        """

    async def describe(self) -> Description:
        """Say what is loaded.

        Raises:
            NotReady: Nothing is.
        """


@runtime_checkable
class GeneratorBackend(Protocol):
    """What the routes call of a generator; local in a replica, remote in the gateway."""

    def stream(
        self, request: GenerationRequest
    ) -> AsyncGenerator[GenerationChunk | GenerationSummary, None]:
        """Generate. Closing the generator ends the work.

        Chunks of several choices come in any order, then one summary.

        Raises:
            RequestError: InvalidField, QueueFull, NotReady or DeadlineExceeded before the first
                chunk; DeadlineExceeded or InternalError after it.
        """

    async def score(self, request: ScoreRequest) -> tuple[TokenLogprob, ...]:
        """Score each token of the continuation that follows something.

        Each score has the ``NUM_TRACED`` most probable tokens in its place.

        Raises:
            RequestError: InvalidField, QueueFull, NotReady or DeadlineExceeded.
        """

    async def describe(self) -> Description:
        """Say what is loaded; see ``EncoderBackend.describe``."""


@dataclass(frozen=True, slots=True)
class VariantForm:
    """What the configuration says that a variant is: names of its recipe and its runtime."""

    recipe: str
    runtime: str


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What the configuration says of a model, as far as routes need it.

    Attributes:
        variants: What each of its variants is, by name, in the order of the configuration.
    """

    name: str
    task: str
    kind: EngineKind
    variants: Mapping[str, VariantForm]
    default_variant: str
    reference: str


@dataclass(frozen=True, slots=True)
class VariantStatus:
    """State of one variant of a model.

    Attributes:
        ready: Whether it answers requests.
        failed: Whether it will not become ready by itself.
        reason: Why it does not, in words; empty when ready.
        replicas: Replicas that run.
        description: What a replica says of itself; None while none answers.
    """

    model: str
    variant: str
    ready: bool
    failed: bool
    reason: str
    replicas: int
    description: Description | None


class Backends(Protocol):
    """Where the routes find the backend of a variant that the configuration names."""

    def encoder(self, model: str, variant: str) -> EncoderBackend:
        """Return the backend of a variant of a model whose kind is ``encoder``."""

    def generator(self, model: str, variant: str) -> GeneratorBackend:
        """Return the backend of a variant of a model whose kind is ``generator``."""

    async def statuses(self) -> list[VariantStatus]:
        """Return the state of every variant, in the order of the configuration."""
