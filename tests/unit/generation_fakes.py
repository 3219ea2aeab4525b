"""A small real backend that generates: it says back what it was asked, piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace

from serving.errors import InvalidField
from serving.seams import (
    Description,
    FinishReason,
    GenerationChunk,
    GenerationRequest,
    GenerationSummary,
    GenerationTimings,
    ScoreRequest,
    TextLogprob,
    TokenizedText,
    TokenLogprob,
    TokensRequest,
)
from tests.unit.fakes.backends import describe_generator

START = GenerationTimings(queue=0.001, tokenize=0.002, prefill=0.004, decode=0, total=0.007)
END = GenerationTimings(queue=0.001, tokenize=0.002, prefill=0.004, decode=0.008, total=0.016)
CACHED_TOKENS = 3


def pieces_of(name: str, asked: str, number: int) -> list[str]:
    """What the fake of variant ``name`` says in the ``number``-th choice for one prompt."""
    return [f"{name}", " heard", f" {asked!r}", f" ({number})"]


def asked_of(request: GenerationRequest) -> list[str]:
    """The prompts, or the chat as one text."""
    chat = "|".join(f"{message.role}: {message.content}" for message in request.messages)
    return [str(prompt) for prompt in request.prompts] or [chat]


class EchoBackend:
    """Generates ``pieces_of`` each prompt.

    A test can make it wait before its chunk number ``hold_at`` until ``gate`` is set, and raise
    ``failure`` before its chunk number ``fail_at``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests: list[GenerationRequest] = []
        self.hold_at: int | None = None
        self.held, self.gate = asyncio.Event(), asyncio.Event()
        self.failure: BaseException | None = None
        self.fail_at = 0
        self.ends_early = False
        self.finish: FinishReason = "length"
        self.ended = asyncio.Event()
        self.running = 0
        self.sent = 0

    async def score(self, request: ScoreRequest) -> tuple[TokenLogprob, ...]:
        assert not isinstance(request.continuation, str)
        return tuple(TokenLogprob(token, -0.5, ((token, -0.5),)) for token in request.continuation)

    async def tokens(self, request: TokensRequest) -> TokenizedText:
        """One token per byte; a chat is the names of its tools and its contents."""
        if self.failure is not None:
            raise self.failure
        if any(token > 255 for token in request.tokens):
            raise InvalidField("no such token", param="prompt")
        text = request.text or bytes(request.tokens).decode(errors="replace")
        said = [*(tool.name for tool in request.tools), *(m.content for m in request.messages)]
        raw = text.encode() or "|".join(said).encode()
        return TokenizedText(tuple(raw), tuple(map(chr, raw)), text, 128)

    async def describe(self) -> Description:
        return replace(describe_generator(), max_tokens=128, kv_cache_bytes=50)

    async def stream(
        self, request: GenerationRequest
    ) -> AsyncGenerator[GenerationChunk | GenerationSummary, None]:
        self.requests.append(request)
        self.running += 1
        try:
            for number, chunk in enumerate(self._chunks(request)):
                if number == self.fail_at and self.failure is not None:
                    raise self.failure
                if number == self.hold_at:
                    self.held.set()
                    await self.gate.wait()
                self.sent += 1
                yield chunk
            if not self.ends_early:
                yield self._summary(request)
        finally:
            self.running -= 1
            self.ended.set()

    def _chunks(self, request: GenerationRequest) -> Iterator[GenerationChunk]:
        choices = [
            pieces_of(self.name, asked, number)
            for asked in asked_of(request)
            for number in range(request.n)
        ]
        if request.stream:
            for place in range(4):
                for index, pieces in enumerate(choices):
                    yield self._chunk(request, index, pieces[place : place + 1], place + 1)
        else:
            for index in reversed(range(len(choices))):
                yield self._chunk(request, index, choices[index], 4)

    def _chunk(
        self, request: GenerationRequest, index: int, pieces: list[str], num_so_far: int
    ) -> GenerationChunk:
        num_rivals = request.sampling.logprobs
        return GenerationChunk(
            choice=index,
            text="".join(pieces),
            logprobs=()
            if num_rivals is None
            else tuple(_logprob(piece, num_rivals) for piece in pieces),
            finish=self.finish if num_so_far == 4 else None,
            timings=START,
            prompt_tokens=len(asked_of(request)[index // request.n]),
            output_tokens=num_so_far,
        )

    def _summary(self, request: GenerationRequest) -> GenerationSummary:
        prompts = asked_of(request)
        return GenerationSummary(
            prompt_tokens=sum(map(len, prompts)),
            cached_tokens=CACHED_TOKENS,
            output_tokens=4 * request.n * len(prompts),
            timings=END,
        )


def _logprob(piece: str, num_rivals: int) -> TextLogprob:
    rivals = tuple((f"r{i}", f"r{i}".encode(), -1.0 - i) for i in range(num_rivals))
    return TextLogprob(piece, piece.encode(), -0.5, rivals)
