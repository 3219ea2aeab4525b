"""A real HTTP server in the test's own event loop, with OpenAI's routes and quantserve's pages."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from aiohttp import web

VECTORS = {"fp32": (1.0, 0.0), "int4": (3.0, 4.0)}
"""Cosine 0.6."""

LABELS = {"fp32": "positive", "int4": "negative"}
TEXTS = {"fp32": ("one ", "two ", "three"), "int4": ("one ", "two ", "four")}


@dataclass
class NullServer:
    """Answers at once.

    Attributes:
        arrived: Bodies in order.
        release: Answers wait for it.
        status: Of every answer.
        is_known: Whether ``/v1/models`` and ``/metrics`` are as quantserve's.
        answer: What every request is answered with, if not with the routes' own.
        stream: The bytes of every stream, if not the route's own.
        completions_with: What answers completions, if not the route's own.
        metrics_page: The bytes of ``/metrics``, if not quantserve's.
    """

    url: str = ""
    arrived: list[dict[str, Any]] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    status: int = 200
    is_known: bool = True
    broken_streams: bool = False
    answer: dict[str, Any] | None = None
    stream: bytes | None = None
    completions_with: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    metrics_page: bytes | None = None
    answered: Counter[str] = field(default_factory=Counter)

    async def take(self, request: web.Request) -> str:
        body = await request.json()
        self.arrived.append(body)
        await self.release.wait()
        variant = body["model"].partition(":")[2]
        self.answered[variant] += 1
        return variant

    async def embeddings(self, request: web.Request) -> web.Response:
        vector = np.array(VECTORS[await self.take(request)], "<f4")
        if self.answer is not None:
            return web.json_response(self.answer)
        entry = {"embedding": base64.b64encode(vector.tobytes()).decode()}
        return web.json_response({"data": [entry]}, status=self.status)

    async def classify(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"label": LABELS[await self.take(request)]}]})

    async def completions(self, request: web.Request) -> web.StreamResponse:
        if self.completions_with is not None:
            return await self.completions_with(request)
        texts = TEXTS[await self.take(request)]
        usage = {"prompt_tokens": 5, "completion_tokens": len(texts)}
        if not (await request.json())["stream"]:
            if self.answer is not None:
                return web.json_response(self.answer)
            choice = {"text": "".join(texts)}
            return web.json_response({"choices": [choice], "usage": usage})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if self.stream is not None:
            await response.write(self.stream)
            return response
        events = [{"choices": [{"text": text, "finish_reason": None}]} for text in texts]
        events.append({"choices": [{"text": "", "finish_reason": "stop"}]})
        for event in [*events, {"choices": [], "usage": usage}]:
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        ending = b'{"error": {"message": "gone"}}' if self.broken_streams else b"[DONE]"
        await response.write(b"data: " + ending + b"\n\n")
        return response

    async def models(self, request: web.Request) -> web.Response:
        if not self.is_known:
            raise web.HTTPNotFound
        told = {
            "model": "m",
            "ready": True,
            "reason": None,
            "device": "cpu",
            "recipe": "as trained",
        }
        entries = [
            {"quantserve": {**told, "variant": variant, "reference": variant == "fp32"}}
            for variant in ("int4", "fp32")
        ]
        return web.json_response({"data": entries})

    async def metrics(self, request: web.Request) -> web.Response:
        if not self.is_known:
            raise web.HTTPNotFound
        if self.metrics_page is not None:
            return web.Response(body=self.metrics_page, content_type="text/plain", charset="utf-8")
        lines = []
        for variant in VECTORS:
            labels = f'{{model="m",variant="{variant}",replica="r"}}'
            count = self.answered[variant]
            lines += [
                f"quantserve_queue_duration_seconds_count{labels} {count}",
                f"quantserve_queue_duration_seconds_sum{labels} {0.002 * count}",
                f"quantserve_weights_bytes{labels} 1000",
            ]
        return web.Response(text="\n".join(lines) + "\n")


@pytest.fixture
async def server() -> AsyncIterator[NullServer]:
    """A server that answers at once, until ``release`` is cleared."""
    server = NullServer()
    server.release.set()
    app = web.Application()
    app.router.add_post("/v1/embeddings", server.embeddings)
    app.router.add_post("/v1/classify", server.classify)
    app.router.add_post("/v1/completions", server.completions)
    app.router.add_get("/v1/models", server.models)
    app.router.add_get("/metrics", server.metrics)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()
