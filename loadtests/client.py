"""Sends one request and notes when what came back."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import aiohttp
import orjson
import yarl

from loadtests.samples import CUT_OFF, OK

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
        first: First event with text.
        last: Last event of a choice.
        ended: The whole answer, or the error.
        outcome: See ``Samples.outcomes``; a request that nothing ended is cut off.
        output_tokens: By the answer's usage, else events with text.
        answer: The answer's body, or the generated text; None unless it is to be kept.
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
        exchange.outcome = outcome
        if outcome == OK and not self._is_streamed:
            if self._is_generation:
                exchange.output_tokens, content = _generated(content)
            exchange.answer = content if keep else None


def _generated(content: bytes) -> tuple[float, bytes]:
    """Output tokens and text of an answer in one piece; NaN and nothing if it has another form."""
    try:
        answer = orjson.loads(content)
        choice = answer["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        return float(answer["usage"]["completion_tokens"]), str(text).encode()
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return math.nan, b""


async def _read_stream(response: aiohttp.ClientResponse, exchange: Exchange, keep: bool) -> str:
    """Read server-sent events to their end; return the outcome."""
    texts: list[str] = []
    num_texts = 0
    rest = b""
    ended = False
    async for chunk in response.content.iter_any():
        now = clock()
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                ended = True
                continue
            try:
                event = orjson.loads(data)
            except orjson.JSONDecodeError:
                return "stream_error"
            if not isinstance(event, dict) or "error" in event:
                return "stream_error"
            if usage := event.get("usage"):
                exchange.output_tokens = float(usage.get("completion_tokens", math.nan))
            for choice in event.get("choices") or ():
                exchange.last = now
                if text := choice.get("text") or (choice.get("delta") or {}).get("content"):
                    num_texts += 1
                    if num_texts == 1:
                        exchange.first = now
                    if keep:
                        texts.append(text)
    if not ended:
        return "stream_error"
    if math.isnan(exchange.output_tokens):
        exchange.output_tokens = float(num_texts)
    exchange.answer = "".join(texts).encode() if keep else None
    return OK
