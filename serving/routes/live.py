"""``GET /v1/live``: what moves in the service, as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import orjson
from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope, Send

from serving.errors import NotReady
from serving.routes.connection import while_connected
from serving.routes.generation.response import HEADERS
from serving.routes.quality import check_query
from serving.routes.services import services_of
from serving.seams.live import LiveEvent

router = APIRouter(prefix="/v1", tags=["console"])

STILL_HERE = b": nothing changed\n\n"


@router.get("/live")
async def live(request: Request) -> Response:
    """States, figures and quality of every variant, then whatever changes of them.

    The stream ends by itself after a minute, so that no gateway that stops has to wait for one;
    ask again then.
    """
    services = services_of(request)
    check_query(request)
    if services.live is None:
        raise NotReady("nothing is told live here")
    return LiveResponse(services.live.listen())


class LiveResponse(Response):
    """Sends events until the client goes."""

    background = None

    def __init__(self, events: AsyncGenerator[LiveEvent | None, None]) -> None:
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await while_connected(receive, self._send_events(send))

    async def _send_events(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            # Before the status: as many as may listen already is an error of its own.
            first = await anext(events)
            await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
            await send(_body(event_text(first)))
            async for event in events:
                await send(_body(event_text(event)))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def event_text(event: LiveEvent | None) -> bytes:
    """One event as the protocol writes it."""
    if event is None:
        return STILL_HERE
    data = orjson.dumps({"at": event.at, "data": event.entries}, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"event: " + event.topic.encode() + b"\ndata: " + data + b"\n\n"


def _body(content: bytes) -> dict[str, object]:
    return {"type": "http.response.body", "body": content, "more_body": True}
