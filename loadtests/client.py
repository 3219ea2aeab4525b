"""Sends one request and notes when what came back."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
import yarl

from loadtests.samples import CUT_OFF, NO_DONE, OK

KEEP_ALIVE_S = 4.0
"""Below the 5 s after which uvicorn closes an idle connection, maybe while a request is on its
way."""

clock = time.perf_counter


@dataclass(slots=True)
class Exchange:
    """One request and what became of it; times as of ``clock``, NaN until they are known.

    Attributes:
        index: Which request of its turn, from 0.
        planned: When it should go out.
        in_flight: Requests under way when it went out, itself included.
        sent: When it was handed to the HTTP client.
        first: First event with something generated: text, reasoning, a part of a tool call.
        last: Last event of a choice.
        ended: The whole answer, or the error, or when a request was cut off.
        outcome: See ``RequestSamples.outcomes``; a request that nothing ended is cut off.
        output_tokens: By the answer's usage, else events with something generated.
        answer: The answer's body, or the generated text; None if it has none, or unless it is to be
            kept.
    """

    index: int
    planned: float
    in_flight: int = 0
    sent: float = math.nan
    first: float = math.nan
    last: float = math.nan
    ended: float = math.nan
    outcome: str = CUT_OFF
    output_tokens: float = math.nan
    answer: bytes | None = None


class Client:
    """Sends requests to one route over kept connections, as many as there are requests at once.

    Args:
        url: Of the route.
        headers: Of every request.
        timeout_s: For a whole request.
        is_streamed: Whether answers come as server-sent events.
        is_generation: Whether answers are generated texts.
    """

    def __init__(
        self,
        url: str,
        headers: dict[str, str],
        timeout_s: float,
        *,
        is_streamed: bool = False,
        is_generation: bool = False,
    ) -> None:
        self._url = yarl.URL(url)
        self._is_streamed = is_streamed
        self._is_generation = is_generation
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            headers=headers,
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def send(self, exchange: Exchange, body: bytes, keep: bool) -> None:
        """Send a request and fill in the exchange; ``keep`` keeps the answer.

        Every error of the server or the network is an outcome. If the task is cancelled, the
        connection is closed and the exchange stays cut off.
        """
        exchange.sent = clock()
        try:
            async with self._session.post(self._url, data=body) as response:
                if response.status != 200:
                    await response.read()
                    outcome = f"http_{response.status}"
                elif self._is_streamed:
                    outcome = await _read_stream(response, exchange, keep)
                else:
                    content = await response.read()
                    outcome = OK
        except TimeoutError:
            outcome = "timeout"
        except (aiohttp.ClientError, OSError):
            outcome = "connection"
        exchange.ended = clock()
        if outcome == OK and not self._is_streamed:
            outcome = self._read_answer(exchange, content, keep)
        exchange.outcome = outcome

    def _read_answer(self, exchange: Exchange, content: bytes, keep: bool) -> str:
        """Take what an answer in one piece says; return the outcome."""
        # Other answers are not parsed: it would take the generator's time.
        answer = _parsed(content) if self._is_generation or b'"error"' in content else {}
        if answer.get("error") is not None:
            return "error_answer"
        text: bytes | None = content
        if self._is_generation:
            text, exchange.output_tokens = _text(answer), _output_tokens(answer.get("usage"))
        exchange.answer = text if keep else None
        return OK


def _parsed(content: bytes) -> dict[str, Any]:
    """A JSON object; empty for anything else."""
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _text(answer: dict[str, Any]) -> bytes | None:
    """The generated text of an answer in one piece; None if it has none."""
    try:
        choice = answer["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
    except (LookupError, TypeError):
        return None
    return text.encode() if isinstance(text, str) else None


def _output_tokens(usage: Any) -> float:
    """As the usage says; NaN if it does not say."""
    said = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return float(said) if isinstance(said, int | float) else math.nan


@dataclass(slots=True)
class _Stream:
    """What has come of a stream of events.

    Attributes:
        exchange: Is filled in.
        texts: Of the events that had one.
        num_generated: Events with something generated.
        has_ended: Whether the last event came.
        is_broken: Whether an event was an error or had another form.
    """

    exchange: Exchange
    texts: list[str] = field(default_factory=list)
    num_generated: int = 0
    has_ended: bool = False
    is_broken: bool = False

    def take(self, line: bytes, now: float) -> None:
        """A line without its end, which came at ``now``."""
        if not line.startswith(b"data:"):
            return
        data = line[5:].strip()
        if data == b"[DONE]":
            self.has_ended = True
            return
        try:
            self._take_event(orjson.loads(data), now)
        except (TypeError, AttributeError, ValueError, KeyError):
            self.is_broken = True

    def _take_event(self, event: Any, now: float) -> None:
        if event.get("error") is not None:
            self.is_broken = True
            return
        if usage := event.get("usage"):
            self.exchange.output_tokens = _output_tokens(usage)
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            text = choice.get("text") or delta.get("content")
            if text and not isinstance(text, str):
                raise TypeError("a text is a string")
            self.exchange.last = now
            if text:
                self.texts.append(text)
            if text or _has_other_tokens(delta):
                if not self.num_generated:
                    self.exchange.first = now
                self.num_generated += 1


def _has_other_tokens(delta: dict[str, Any]) -> bool:
    """Whether an event brings tokens that are no text of the answer.

    Reasoning stands in ``reasoning_content`` or, of newer servers, ``reasoning``; a tool call comes
    as its name and pieces of its arguments.
    """
    calls = [call.get("function") or {} for call in delta.get("tool_calls") or ()]
    calls.append(delta.get("function_call") or {})
    return bool(
        delta.get("reasoning_content")
        or delta.get("reasoning")
        or any(call.get("name") or call.get("arguments") for call in calls)
    )


async def _read_stream(response: aiohttp.ClientResponse, exchange: Exchange, keep: bool) -> str:
    """Read server-sent events to their end; return the outcome."""
    stream = _Stream(exchange)
    rest = b""
    now = clock()
    async for chunk in response.content.iter_any():
        now = clock()
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            stream.take(line, now)
        if stream.is_broken:
            return "stream_error"
    stream.take(rest, now)
    if stream.is_broken:
        return "stream_error"
    if not stream.has_ended:
        return NO_DONE
    if math.isnan(exchange.output_tokens):
        exchange.output_tokens = float(stream.num_generated)
    # A text may be empty; without a single choice there is none.
    has_text = not math.isnan(exchange.last)
    exchange.answer = "".join(stream.texts).encode() if keep and has_text else None
    return OK
