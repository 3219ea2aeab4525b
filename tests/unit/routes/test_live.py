"""``GET /v1/live``: what is told, in which form, and what ends it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import orjson
import pytest

from serving.config import ServerConfig
from serving.errors import QueueFull
from serving.metrics import EdgeMetrics
from serving.routes.api import build_gateway_api
from serving.routes.live import STILL_HERE, event_text
from serving.routes.services import Services
from serving.seams.live import LiveEvent
from tests.unit.fakes.backends import FakeBackends
from tests.unit.routes.sites import MODELS, _client, open_gateway

STATES = LiveEvent("states", 12.5, [{"model": "minilm", "variant": "int4", "state": "ready"}])
FIGURES = LiveEvent("figures", 13.5, [{"model": "minilm", "p95_ms": None}])


class FakeFeed:
    """Tells what a test gives it."""

    def __init__(self, *events: LiveEvent | Exception | None) -> None:
        self.events = events
        self.closed = False

    async def listen(self) -> AsyncGenerator[LiveEvent | None, None]:
        try:
            for event in self.events:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.closed = True


def client_of(feed: FakeFeed) -> Any:
    async def metrics_page() -> str:
        return ""

    catalog = {model.name: model for model in MODELS}
    services = Services(catalog, FakeBackends(MODELS), ServerConfig(), live=feed)
    return _client(build_gateway_api(services, EdgeMetrics("gateway-1"), metrics_page), "")


async def test_events_come_as_the_protocol_writes_them() -> None:
    feed = FakeFeed(STATES, None, FIGURES)
    answer = await client_of(feed).get("/v1/live")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream"
    first, comment, last, end = answer.content.split(b"\n\n")
    assert first.startswith(b"event: states\ndata: {")
    assert orjson.loads(first.partition(b"data: ")[2]) == {
        "at": 12.5,
        "data": [{"model": "minilm", "variant": "int4", "state": "ready"}],
    }
    assert comment.startswith(b":")
    assert last.startswith(b"event: figures\n")
    assert b'"p95_ms":null' in last
    assert end == b""
    assert feed.closed


async def test_too_many_listeners_are_told_before_the_stream_begins() -> None:
    answer = await client_of(FakeFeed(QueueFull("16 listen already", retry_after_s=60))).get(
        "/v1/live"
    )
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "60"


async def test_nothing_is_told_where_nobody_looks() -> None:
    assert (await open_gateway().client.get("/v1/live")).status_code == 503


async def test_a_query_that_means_nothing_is_refused() -> None:
    answer = await client_of(FakeFeed(STATES)).get("/v1/live?model=minilm")
    assert answer.status_code == 422


@pytest.mark.parametrize("event", [STATES, FIGURES])
def test_an_event_is_one_line_of_data(event: LiveEvent) -> None:
    text = event_text(event)
    assert text.endswith(b"\n\n")
    assert text.count(b"\n") == 3
    assert event_text(None) == STILL_HERE
