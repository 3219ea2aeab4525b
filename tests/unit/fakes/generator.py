"""A small real generator, of one token per byte; it repeats its prompt and its seed."""

from __future__ import annotations

import asyncio
import codecs
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from serving.errors import InvalidField
from serving.seams import (
    DeviceName,
    Footprint,
    GeneratedToken,
    GeneratorLoad,
    Message,
    Progress,
    TextStream,
    TokenLogprob,
    TokenRequest,
    TokenTable,
    Tool,
    ToolUse,
)
from serving.tasks.tool_calls import CallReader
from serving.tasks.tool_formats import FORMATS, answer_grammar
from tests.unit.fakes.encoder import FOOTPRINT
from tests.unit.fakes.waiting import let_others_act


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

    def open_text(self, prompt: Sequence[int], with_calls: bool = False) -> TextStream:
        return FakeTextStream()

    def token_text(self, token: int) -> tuple[str, bytes]:
        raw = b"<end>" if token in self.stop_tokens else bytes([token])
        return raw.decode("utf-8", "replace"), raw

    def token_table(self) -> TokenTable:
        raw = [self.token_text(token)[1] for token in range(256)]
        return TokenTable(raw, self.stop_tokens, self.stop_tokens)


def logprob_of(token: int, top: int) -> TokenLogprob:
    """What the fake generator says of any token: its rivals are its successors."""
    rivals = tuple((min(token + i, 255), -(token + i) / 100) for i in range(top))
    return TokenLogprob(token, -token / 100, rivals)


class FakeGenerator:
    """Continues each prompt with the next of ``answers``, then with its own, byte by byte.

    Without an answer it repeats the prompt, and its seed. A test can hold every sequence before
    its next token, by ``hold`` and ``let``, and make a sequence fail after an answer.
    """

    device: DeviceName = "cpu"
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

    async def generate(self, request: TokenRequest) -> AsyncGenerator[GeneratedToken, None]:
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
        background = sum(request.background for request in self.open)
        return GeneratorLoad(
            len(self.open), 0, background, kv_cache_bytes=4_000, kv_cache_used=0.25
        )

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
