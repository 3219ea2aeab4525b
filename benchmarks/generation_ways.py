"""Ways to generate from some prompts at once, each measured alike."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.llama_cpp_loop import LlamaCppLoop
from serving.seams import GREEDY, Decoder, GeneratorEngine, Segment, TokenRequest

NEW_TOKENS = 48


@dataclass(frozen=True, slots=True)
class BenchmarkPrompt:
    """The same prompt as text and as token ids."""

    text: str
    token_ids: tuple[int, ...]


@dataclass(slots=True)
class MeasuredRound:
    """One measurement.

    Attributes:
        total: Tokens/s summed over the streams, prefill included.
        decode: Tokens/s summed over the streams, from each stream's first token on.
        first: Seconds to the first token; of several streams, until all have it (loops and
            OpenVINO GenAI) or the median (scheduler and HTTP).
    """

    total: float
    decode: float
    first: float


def plain_loop(
    decoder: Decoder, prompts: Sequence[BenchmarkPrompt]
) -> tuple[MeasuredRound, list[list[int]]]:
    """Prefill each prompt, then one step after the other for all of them at once."""
    started = time.perf_counter()
    last = []
    for slot, prompt in enumerate(prompts):
        logits = decoder.step([Segment(slot, 0, prompt.token_ids)])
        last.append(int(logits[0].argmax()))
    first = time.perf_counter()
    tokens = [[token] for token in last]
    length = len(prompts[0].token_ids)
    for position in range(length, length + NEW_TOKENS - 1):
        steps = [Segment(slot, position, [token]) for slot, token in enumerate(last)]
        last = decoder.step(steps).argmax(1).tolist()
        for sequence, token in zip(tokens, last, strict=True):
            sequence.append(token)
    return _loop_round(len(prompts), started, first, time.perf_counter()), tokens


def own_loop(loop: LlamaCppLoop, prompts: Sequence[BenchmarkPrompt]) -> MeasuredRound:
    """As ``plain_loop``, by the engine's own means."""
    moments = loop.generate([prompt.token_ids for prompt in prompts], NEW_TOKENS)
    return _loop_round(len(prompts), *moments)


def _loop_round(count: int, started: float, first: float, ended: float) -> MeasuredRound:
    return MeasuredRound(
        total=count * NEW_TOKENS / (ended - started),
        decode=count * (NEW_TOKENS - 1) / (ended - first),
        first=first - started,
    )


@dataclass(slots=True)
class Stream:
    """One streamed answer.

    Attributes:
        started: When it was asked for, ``time.perf_counter``.
        moments: When each of its events came.
        tokens: Tokens that it had, as the usage says.
    """

    started: float = 0.0
    moments: list[float] = field(default_factory=list)
    tokens: int = 0


async def through_scheduler(
    engine: GeneratorEngine, prompts: Sequence[BenchmarkPrompt]
) -> MeasuredRound:
    """Have a replica's engine continue them, in the event loop that it first met."""

    async def one(prompt: BenchmarkPrompt) -> Stream:
        asked = TokenRequest(prompt.token_ids, NEW_TOKENS, frozenset(), GREEDY)
        answer = Stream(started=time.perf_counter())
        async for _ in engine.generate(asked):
            answer.moments.append(time.perf_counter())
        answer.tokens = len(answer.moments)
        return answer

    started = time.perf_counter()
    answers = await asyncio.gather(*(one(prompt) for prompt in prompts))
    return _streams_round(started, answers)


async def stream(place: str, text: str, max_tokens: int = NEW_TOKENS) -> Stream:
    """Send one request on a connection of its own and time its events.

    Args:
        place: URL of OpenAI's route for completions.
        text: The prompt.
        max_tokens: Most tokens of the answer.
    """
    authority, _, path = place.removeprefix("http://").partition("/")
    host, port = authority.split(":")
    body = json.dumps(
        {
            "prompt": text,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    head = (
        f"POST /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(host, int(port), limit=2**20)
    answer = Stream(started=time.perf_counter())
    writer.write(head.encode() + body)
    status = await reader.readline()
    assert b" 200 " in status, status
    while line := await reader.readline():
        if line.startswith(b"data: {"):
            usage = json.loads(line[6:]).get("usage")
            # llama.cpp's server sends it with an event of no text, ours with no choice at all.
            if usage is None:
                answer.moments.append(time.perf_counter())
            else:
                answer.tokens = usage["completion_tokens"]
    writer.close()
    return answer


async def through_http(place: str, prompts: Sequence[BenchmarkPrompt]) -> MeasuredRound:
    """Stream all of them from a route for completions at once."""
    started = time.perf_counter()
    answers = await asyncio.gather(*(stream(place, prompt.text) for prompt in prompts))
    measured = _streams_round(started, answers)
    tokens = sum(answer.tokens for answer in answers)
    assert tokens >= 0.9 * NEW_TOKENS * len(prompts), "an answer ended early"
    return measured


def _streams_round(started: float, answers: Sequence[Stream]) -> MeasuredRound:
    ended = time.perf_counter()
    tokens = sum(answer.tokens for answer in answers)
    decoding = ended - statistics.median(answer.moments[0] for answer in answers)
    return MeasuredRound(
        total=tokens / (ended - started),
        decode=(tokens - len(answers)) / decoding,
        first=statistics.median(answer.moments[0] - answer.started for answer in answers),
    )
