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
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidField
from serving.seams import (
    NUM_TRACED,
    Arrays,
    AutoChoice,
    Description,
    EngineKind,
    Footprint,
    GeneratedToken,
    GenerationChunk,
    GenerationRequest,
    GenerationSummary,
    GenerationTimings,
    GeneratorLoad,
    InferenceRequest,
    Input,
    Limits,
    Message,
    Outcome,
    Pooled,
    Progress,
    ScoreRequest,
    ServedModel,
    Timings,
    TokenizedText,
    TokenLogprob,
    TokenRequest,
    TokensRequest,
    TokenTable,
    Tool,
    ToolUse,
    VariantForm,
    VariantStatus,
)
from serving.tasks.tool_calls import CallReader
from serving.tasks.tool_formats import FORMATS, answer_grammar

WIDTH = 8
LABELS = ("negative", "positive")
TIMINGS = Timings(queue=0.001, tokenize=0.002, core_wait=0.003, forward=0.004, total=0.016)
GENERATION_TIMINGS = GenerationTimings(0.001, 0.002, 0.004, 0.008, 0.016)
FOOTPRINT = Footprint(weights_bytes=100, resident_bytes=200, private_bytes=150, peak_bytes=300)
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
        self.cores: list[tuple[int, ...]] = []
        self.entered, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def use_cores(self, cores: Sequence[int]) -> None:
        self.cores.append(tuple(cores))

    def forward(self, inputs: Arrays) -> NDArray[np.float32]:
        rows = zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        self.batches.append([ids[mask == 1].tolist() for ids, mask in rows])
        texts = self.batches[-1]
        self.entered.set()
        assert self.gate.wait(MAX_WAIT_S)
        if self.failures:
            raise self.failures.pop(0)
        return np.stack([row_of(ids, self.variant, self.width) for ids in texts])

    def footprint(self) -> Footprint:
        return FOOTPRINT


@dataclass(frozen=True, slots=True)
class FakeItem:
    """Token ids of one input."""

    token_ids: tuple[int, ...]

    @property
    def cost(self) -> int:
        return len(self.token_ids)


class FakeTask:
    """One token per byte, between the tokens 1 and 2; the texts of a pair have a 3 between them."""

    head = Pooled()
    max_tokens = 40

    def __init__(self, labels: tuple[str, ...] = ()) -> None:
        self.labels, self.width = labels, len(labels) or WIDTH
        self.prepared_in: list[threading.Thread] = []

    def prepare(self, inputs: Sequence[Input], truncate: bool) -> list[FakeItem]:
        self.prepared_in.append(threading.current_thread())
        texts = [
            asked.encode() if isinstance(asked, str) else b"\x03".join(map(str.encode, asked))
            for asked in inputs
        ]
        if not truncate and any(len(text) + 2 > self.max_tokens for text in texts):
            raise InvalidField("a text is too long", param="input")
        return [FakeItem((1, *text[: self.max_tokens - 2], 2)) for text in texts]

    def prepare_ids(self, inputs: Sequence[Sequence[int]], truncate: bool) -> list[FakeItem]:
        return [FakeItem(tuple(ids)) for ids in inputs]

    def collate(self, items: Sequence[FakeItem]) -> Arrays:
        shape = len(items), max(item.cost for item in items)
        input_ids, attention_mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, item in enumerate(items):
            input_ids[row, : item.cost] = item.token_ids
            attention_mask[row, : item.cost] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask}

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

    def decode_prompt(self, tokens: Sequence[int]) -> str:
        if max(tokens) > 255:
            raise InvalidField(f"no token {max(tokens)}", param="prompt")
        return bytes(tokens).decode()

    def encode_continuation(
        self, prompt: str, continuation: str
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        self.encoded_in.append(threading.current_thread())
        return tuple(prompt.encode()), tuple(continuation.encode())

    def encode_chat(
        self, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> tuple[int, ...]:
        named = "".join(f"[{tool.name}]" for tool in tools)
        return self.encode_prompt(named + "".join(f"<{m.role}>{m.content}" for m in messages))

    def answer_grammar(
        self, schema: Mapping[str, Any] | None, tool_use: ToolUse | None
    ) -> str | None:
        return answer_grammar(FORMATS[0], tool_use, schema, {})

    def open_calls(self, tool_use: ToolUse) -> CallReader:
        return CallReader(FORMATS[0], tool_use.is_parallel)

    def open_text(self, prompt: Sequence[int], with_calls: bool = False) -> FakeTextStream:
        return FakeTextStream()

    def token_text(self, token: int) -> tuple[str, bytes]:
        raw = b"<end>" if token in self.stop_tokens else bytes([token])
        return raw.decode("utf-8", "replace"), raw

    def token_table(self) -> TokenTable:
        raw = [self.token_text(token)[1] for token in range(256)]
        return TokenTable(raw, self.stop_tokens, self.stop_tokens)


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
    can_score = True

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
        return FOOTPRINT

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
        self.task.check_dimensions(request.dimensions)
        items = self.task.prepare(request.inputs, request.truncate)
        items += self.task.prepare_ids(request.token_ids, request.truncate)
        rows = self.engine.forward(self.task.collate(items))
        answers = self.task.decode(rows, request.dimensions)
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

    def encoder(self, model: str, variant: str) -> FakeEncoderBackend:
        return self.encoders[model, variant]

    def generator(self, model: str, variant: str) -> FakeGeneratorBackend:
        return self.generators[model, variant]

    async def statuses(self) -> list[VariantStatus]:
        return [
            VariantStatus(*name, False, "failed" in self.reasons[name], self.reasons[name], 0, None)
            if name in self.reasons
            else VariantStatus(*name, True, False, "", 1, await self._describe(name))
            for name in self.names
        ]

    async def _describe(self, name: tuple[str, str]) -> Description:
        backend = self.encoders.get(name) or self.generators[name]
        return await backend.describe()


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
