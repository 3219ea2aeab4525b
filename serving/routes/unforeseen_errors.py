"""Turns an exception that nobody foresaw into a 500 in quantserve's shape."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import InternalError
from serving.routes.error_responses import error_response

logger = logging.getLogger("ray.serve.quantserve")


class UnforeseenErrors:
    """ASGI middleware inside the application, where Starlette has not answered in its own words."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        response_started = False

        async def send_and_note(message: Message) -> None:
            nonlocal response_started
            response_started = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception:
            if response_started:
                raise
            error = log_unforeseen(scope["state"]["record"].request_id)
            await error_response(error, scope["path"])(scope, receive, send)


def log_unforeseen(request_id: str) -> InternalError:
    """Log the exception that is being handled, and return what the client may know of it."""
    logger.exception("request %s failed", request_id)
    return InternalError(f"internal error; see the log for request {request_id}")
