"""Small real implementations of the seams.

Every answer depends on the text and on the name of the variant, so that a mix-up shows.
"""

from __future__ import annotations

import asyncio
import codecs
import threading
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidField
from serving.replica.encoder.batching import pad
from serving.seams import (
    NUM_TRACED,
    AutoChoice,
    Description,
    Footprint,
    GeneratedToken,
    GenerationChunk,
    GenerationRequest,
    GenerationSummary,
    GenerationTimings,
    GeneratorLoad,
    InferenceRequest,
    Limits,
    Message,
    Outcome,
    Progress,
    ScoreRequest,
    ServedModel,
    Timings,
    TokenBatch,
    TokenLogprob,
    TokenRequest,
    VariantStatus,
)

WIDTH = 8
LABELS = ("negative", "positive")
TIMINGS = Timings(queue=0.001, tokenize=0.002, forward=0.004, total=0.008)
GENERATION_TIMINGS = GenerationTimings(0.001, 0.002, 0.004, 0.008, 0.016)
MAX_WAIT_S = 10


def row_of(token_ids: Sequence[int], variant: str, width: int = WIDTH) -> NDArray[np.float32]:
    """The row that the fake engine of ``variant`` answers for one text."""
    seed = zlib.crc32(f"{variant} {[int(token) for token in token_ids]}".encode())
    return np.random.default_rng(seed).random(width, dtype=np.float32)


class FakeEngine:
    """Answers ``row_of``; a test can hold its passes at ``gate`` and make them fail."""

    device = "cpu"

    def __init__(self, variant: str = "fp32", width: int = WIDTH) -> None:
        self.variant, self.width = variant, width
        self.batches: list[list[list[int]]] = []
        self.failures: list[Exception] = []
        self.entered, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def forward(self, batch: TokenBatch) -> NDArray[np.float32]:
        rows = zip(batch.input_ids, batch.attention_mask, strict=True)
        self.batches.append([ids[mask == 1].tolist() for ids, mask in rows])
        texts = self.batches[-1]
        self.entered.set()
        assert self.gate.wait(MAX_WAIT_S)
        if self.failures:
            raise self.failures.pop(0)
        return np.stack([row_of(ids, self.variant, self.width) for ids in texts])

    def footprint(self) -> Footprint:
        return Footprint(weights_bytes=100, disk_bytes=90, resident_bytes=200, peak_bytes=300)

    def state_dict(self) -> Mapping[str, NDArray[np.float32]]:
        return {}


class FakeTask:
    """One token per byte, between the tokens 1 and 2."""

    head = None
    max_tokens = 40

    def __init__(self, labels: tuple[str, ...] = ()) -> None:
        self.labels, self.width = labels, len(labels) or WIDTH
        self.encoded_in: list[threading.Thread] = []

    def encode(self, texts: Sequence[str], truncate: bool) -> list[list[int]]:
        self.encoded_in.append(threading.current_thread())
        if not truncate and any(len(text.encode()) + 2 > self.max_tokens for text in texts):
            raise InvalidField("a text is too long", param="input")
        return [[1, *text.encode()[: self.max_tokens - 2], 2] for text in texts]

    def check_dimensions(self, dimensions: int | None) -> None:
        if dimensions is not None and dimensions > self.width:
            raise InvalidField(f"dimensions is {dimensions}", param="dimensions")

    def decode(self, rows: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
        return rows[:, :dimensions]


class FakeTextStream:
    """Bytes to text; a character waits for its last byte."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        return self._decoder.decode(bytes([token]))

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


class FakeGenerationTask:
    """One token per byte; a chat is its contents, one after the other."""

    stop_tokens = frozenset({0})
    max_tokens = 1_000

    def __init__(self) -> None:
        self.encoded_in: list[threading.Thread] = []

    def encode_prompt(self, prompt: str) -> tuple[int, ...]:
        self.encoded_in.append(threading.current_thread())
        if not prompt:
            raise InvalidField("a prompt is empty", param="prompt")
        return tuple(prompt.encode())

    def encode_continuation(
        self, prompt: str, continuation: str
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        self.encoded_in.append(threading.current_thread())
        return tuple(prompt.encode()), tuple(continuation.encode())

    def encode_chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        return self.encode_prompt("".join(f"<{m.role}>{m.content}" for m in messages))

    def open_text(self, prompt: Sequence[int]) -> FakeTextStream:
        return FakeTextStream()

    def token_text(self, token: int) -> tuple[str, bytes]:
        raw = b"<end>" if token in self.stop_tokens else bytes([token])
        return raw.decode("utf-8", "replace"), raw


async def let_others_act() -> None:
    """Let every task run until it waits for something that does not come by itself."""
    for _ in range(20):
        await asyncio.sleep(0)


def logprob_of(token: int, top: int) -> TokenLogprob:
    """What the fake generator says of any token: its rivals are its successors."""
    rivals = tuple((min(token + i, 255), -(token + i) / 100) for i in range(top))
    return TokenLogprob(token, -token / 100, rivals)


class FakeGenerator:
    """Continues each prompt with the next of ``answers``, then with its own, byte by byte.

    Without an answer it repeats the prompt, and its seed. A test can hold every sequence before
    its next token, by ``hold`` and ``let``, and make a sequence fail after an answer.
    """

    device = "cpu"

    def __init__(self, *answers: str | bytes | Exception, max_tokens: int = 1_000) -> None:
        self.answers = list(answers)
        self.max_tokens = max_tokens
        self.requests: list[TokenRequest] = []
        self.open: list[TokenRequest] = []
        """Those of ``requests`` that hold a place."""
        self.idle = asyncio.Event()
        """Set when the last of them gives its place back."""
        self.steps = 0
        self.health: Exception | None = None
        self.is_closed = False
        self._permits: asyncio.Semaphore | None = None

    def hold(self) -> None:
        """Give no token but those that ``let`` allows."""
        self._permits = asyncio.Semaphore(0)

    async def let(self, tokens: int) -> None:
        """Allow so many tokens, to sequences in turn; return when consumers could have acted."""
        assert self._permits is not None
        await let_others_act()
        for _ in range(tokens):
            self._permits.release()
            await let_others_act()

    async def generate(self, request: TokenRequest) -> AsyncIterator[GeneratedToken]:
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else _parrot(request)
        self.open.append(request)
        started = time.perf_counter()
        try:
            if isinstance(answer, Exception):
                await self._turn()
                raise answer
            raw = answer.encode() if isinstance(answer, str) else answer
            # One token comes in any case: an engine has no other way to hand scores over.
            tokens = [*raw, *request.stop_tokens][: max(request.max_new_tokens, 1)]
            for number, token in enumerate(tokens):
                await self._turn()
                yield self._generated(request, number, token, time.perf_counter() - started)
        finally:
            self.open.remove(request)
            if not self.open:
                self.idle.set()

    def load(self) -> GeneratorLoad:
        return GeneratorLoad(len(self.open), 0, kv_cache_bytes=4_000, kv_cache_used=0.25)

    def observe_steps(self, on_step: Callable[[int], None]) -> None:
        self.on_step = on_step

    def check_health(self) -> None:
        if self.health is not None:
            raise self.health

    def footprint(self) -> Footprint:
        return Footprint(weights_bytes=100, disk_bytes=90, resident_bytes=200, peak_bytes=300)

    def state_dict(self) -> Mapping[str, NDArray[np.float32]]:
        return {}

    def close(self) -> None:
        self.is_closed = True

    async def _turn(self) -> None:
        if self._permits is None:
            await asyncio.sleep(0)
        else:
            await self._permits.acquire()
        self.steps += 1

    def _generated(
        self, request: TokenRequest, number: int, token: int, elapsed: float
    ) -> GeneratedToken:
        is_stop = token in request.stop_tokens
        is_last = number + 1 >= request.max_new_tokens
        top = request.sampling.logprobs
        scored = () if number or request.logprobs_from is None else request.prompt
        return GeneratedToken(
            token=token,
            finish="stop" if is_stop else "length" if is_last else None,
            progress=Progress(0.25 * elapsed, 0.25 * elapsed, 0.5 * elapsed, len(request.prompt)),
            logprob=None if top is None else logprob_of(token, top),
            prompt=tuple(logprob_of(t, top or 0) for t in scored[request.logprobs_from :]),
        )


def _parrot(request: TokenRequest) -> bytes:
    return bytes(request.prompt) + str(request.sampling.seed).encode()


class FakeBackend:
    """Task and engine without a queue; raises ``failure`` if a test sets it."""

    def __init__(self, name: str, labels: tuple[str, ...]) -> None:
        self.task = FakeTask(labels)
        self.engine = FakeEngine(name, self.task.width)
        self.requests: list[InferenceRequest] = []
        self.failure: Exception | None = None

    async def infer(self, request: InferenceRequest) -> Outcome:
        self.requests.append(request)
        if self.failure is not None:
            raise self.failure
        self.task.check_dimensions(request.dimensions)
        token_ids = self.task.encode(request.texts, request.truncate)
        batch = pad(token_ids, self.task.max_tokens)
        rows = self.task.decode(self.engine.forward(batch), request.dimensions)
        return Outcome(rows, self.task.labels, sum(map(len, token_ids)), TIMINGS)

    def stream(
        self, request: GenerationRequest
    ) -> AsyncGenerator[GenerationChunk | GenerationSummary, None]:
        raise InvalidField("this model does not generate", param="model")

    async def score(self, request: ScoreRequest) -> tuple[TokenLogprob, ...]:
        raise InvalidField("this model does not generate", param="model")

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

    async def infer(self, request: InferenceRequest) -> Outcome:
        raise InvalidField("this model generates", param="model")

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


class FakeBackends:
    """A backend per variant of a catalog; all are ready but those in ``reasons``."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self.all = {
            (model.name, variant): _backend(model, variant)
            for model in models
            for variant in model.variants
        }
        self.reasons: dict[tuple[str, str], str] = {}

    def backend(self, model: str, variant: str) -> FakeBackend | FakeGeneratorBackend:
        return self.all[model, variant]

    async def statuses(self) -> list[VariantStatus]:
        return [
            VariantStatus(*name, False, "failed" in self.reasons[name], self.reasons[name], 0, None)
            if name in self.reasons
            else VariantStatus(*name, True, False, "", 1, await backend.describe())
            for name, backend in self.all.items()
        ]


def describe(task: FakeTask) -> Description:
    """What a replica with ``task`` says of itself."""
    return Description(
        "cpu", "avx2", 100, 90, 200, 300, 1.5, task.max_tokens, task.width, task.labels
    )


def describe_generator() -> Description:
    """What a replica of a generator says of itself."""
    return Description("cpu", "avx2", 100, 90, 200, 300, 1.5, 1_000, 0, (), kv_cache_bytes=4_000)


def _backend(model: ServedModel, variant: str) -> FakeBackend | FakeGeneratorBackend:
    if model.task == "generation":
        return FakeGeneratorBackend()
    return FakeBackend(f"{model.name}:{variant}", LABELS if model.task == "classification" else ())
