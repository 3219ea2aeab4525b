"""Sends what a backend generates, as one JSON object or as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from time import time
from typing import Any

import orjson
from fastapi import Response
from starlette.types import Receive, Scope, Send

from serving.errors import InternalError, RequestError
from serving.routes.connection import while_connected
from serving.routes.error_responses import openai_error
from serving.routes.generation.writers import Writer, figures, usage, usage_so_far
from serving.routes.json_response import json_response
from serving.routes.record import Record
from serving.routes.unforeseen_errors import log_unforeseen
from serving.seams import GenerationChunk, GenerationSummary, GenerationTimings

Pieces = AsyncGenerator[GenerationChunk | GenerationSummary, None]

HEADERS = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    # Or nginx would collect the events.
    (b"x-accel-buffering", b"no"),
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """How an answer is sent.

    Attributes:
        model: Name of the model and variant that answer.
        num_choices: How many choices there will be.
        stream: Whether as server-sent events.
        include_usage: Whether a stream ends with a chunk of token counts and timings.
        continuous_usage: Whether each chunk of a stream has the token counts of its choice so far.
    """

    model: str
    num_choices: int
    stream: bool
    include_usage: bool
    continuous_usage: bool = False


class GenerationResponse(Response):
    """Sends the answer while it is generated; the work ends when the client goes.

    Nothing is sent before the first piece is there, so an error until then gets its own status.
    One after that becomes the last event of the stream.

    Args:
        pieces: What the backend generates.
        writer: Writes it in the route's form.
        delivery: How it is sent.
        record: Learns where the time went.
    """

    background = None

    def __init__(self, pieces: Pieces, writer: Writer, delivery: Delivery, record: Record) -> None:
        self._pieces = pieces
        self._writer = writer
        self._delivery = delivery
        self._record = record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._delivery.stream:
            await while_connected(receive, self._send_events(send))
        else:
            await while_connected(receive, self._send_whole(scope, receive, send))

    async def _send_whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        chunks: list[GenerationChunk] = []
        summary = None
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                if isinstance(piece, GenerationSummary):
                    summary = piece
                else:
                    chunks.append(piece)
        if summary is None:
            raise _broken_off()
        self._note(summary.timings)
        chunks.sort(key=lambda chunk: chunk.choice)
        choices = [self._writer.choice(chunk) for chunk in chunks]
        content = {
            **self._head(self._writer.object),
            "choices": choices,
            **self._figures(summary),
        }
        await json_response(content)(scope, receive, send)

    async def _send_events(self, send: Send) -> None:
        is_started = False
        try:
            async with aclosing(self._pieces) as pieces:
                head = orjson.dumps(self._head(self._writer.chunk_object))[:-1]
                before = b"data: " + head + b',"choices":['
                delta = self._writer.delta
                summary = None
                async for piece in pieces:
                    if isinstance(piece, GenerationSummary):
                        summary = piece
                        continue
                    if not is_started:
                        self._note_start(piece.timings)
                        await send(_start())
                        is_started = True
                    event = before + orjson.dumps(delta(piece)) + self._after(piece)
                    await send(_body(event, True))
            if summary is None:
                raise _broken_off()
            self._note(summary.timings)
            last = b"data: [DONE]\n\n"
            if self._delivery.include_usage:
                last = before + b"]," + orjson.dumps(self._figures(summary))[1:] + b"\n\n" + last
        except Exception as error:
            if not is_started:
                raise
            last = self._failure(error)
        await send(_body(last, False))

    def _after(self, chunk: GenerationChunk) -> bytes:
        """What follows the choice of a chunk; a client that wants usage wants it or null in all."""
        if self._delivery.continuous_usage:
            return b'],"usage":' + orjson.dumps(usage_so_far(chunk)) + b"}\n\n"
        return b'],"usage":null}\n\n' if self._delivery.include_usage else b"]}\n\n"

    def _failure(self, error: Exception) -> bytes:
        if not isinstance(error, RequestError):
            error = log_unforeseen(self._record.request_id)
        self._record.failure = error.status
        return b"data: " + orjson.dumps(openai_error(error)) + b"\n\n"

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self._writer.id_prefix + self._record.request_id,
            "object": kind,
            "created": int(time()),
            "model": self._delivery.model,
        }

    def _figures(self, summary: GenerationSummary) -> dict[str, Any]:
        return {
            "usage": usage(summary),
            "quantserve": figures(summary, self._delivery.num_choices),
        }

    def _note_start(self, timings: GenerationTimings) -> None:
        self._record.phases = {
            "queue": timings.queue,
            "tokenize": timings.tokenize,
            "core_wait": timings.core_wait,
            "prefill": timings.prefill,
        }

    def _note(self, timings: GenerationTimings) -> None:
        self._note_start(timings)
        self._record.phases["decode"] = timings.decode


def _start() -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": list(HEADERS)}


def _body(body: bytes, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


def _broken_off() -> InternalError:
    return InternalError("the answer broke off before its end; send the request again")
