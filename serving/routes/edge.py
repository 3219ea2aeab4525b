"""Around every exchange: key, limits of the body, headers, metrics and the log line."""

from __future__ import annotations

import asyncio
import hmac
import time
import uuid
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.config import ServerConfig
from serving.errors import (
    BodyTooSlow,
    MethodNotAllowed,
    QueueFull,
    RequestError,
    TooLarge,
    Unauthorized,
)
from serving.metrics import EdgeMetrics, Labels
from serving.routes.cross_origin import open_to
from serving.routes.error_responses import error_response, is_open_inference
from serving.routes.json_nesting import check_nesting
from serving.routes.plain_requests import as_plain, inflate
from serving.routes.record import Record
from serving.routes.request_log import RequestLog

CLIENT_CLOSED_REQUEST = 499
MAX_REQUEST_ID = 128

DISCARDED_BYTES = 8 * 1024**2
"""A body that is over its limit by less than this is read to its end before the answer.

Clients that still send when the connection closes report a broken connection, not the answer.
"""


class Edge:
    """ASGI application around the routes.

    Args:
        app: The routes.
        server: Limits and key.
        metrics: Counts the answers.
        open_paths: Paths that need no key.
        fixed: Labels of the variant that the path has chosen already, in a replica.
    """

    def __init__(
        self,
        app: ASGIApp,
        server: ServerConfig,
        metrics: EdgeMetrics,
        open_paths: Collection[str],
        fixed: Labels | None = None,
    ) -> None:
        self._app = app
        # Outside the check of the key: a preflight has none, and a page has to read the 401.
        self._answer = open_to(server.cors_origins, self._check_and_answer)
        self._server = server
        self._metrics = metrics
        self._open_paths = open_paths
        self._fixed = fixed
        self._log = RequestLog()
        self.in_flight = 0
        """Requests that have not been answered yet."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "websocket":
            error = MethodNotAllowed("no WebSockets here; ask over HTTP, see /docs")
            await error_response(error, scope["path"])(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        record = Record(_request_id(headers))
        if scope["method"] == "POST":
            record.labels = self._fixed
        scope.setdefault("state", {})["record"] = record
        status = CLIENT_CLOSED_REQUEST
        is_complete = False
        self.in_flight += 1

        async def send_with_headers(message: Message) -> None:
            nonlocal status, is_complete
            if message["type"] == "http.response.start":
                status = message["status"]
                total = time.perf_counter() - record.arrived
                _set_headers(MutableHeaders(scope=message), record, total)
                await send(message)
                return
            await send(message)
            is_complete = not message.get("more_body", False)

        try:
            plain, send_plain = as_plain(scope, send_with_headers)
            await self._answer(plain, receive, send_plain)
        finally:
            self.in_flight -= 1
            total = time.perf_counter() - record.arrived
            if not is_complete:
                status = CLIENT_CLOSED_REQUEST
            elif record.failure is not None:
                status = record.failure
            # A route that does not exist must not create series.
            if record.labels is not None and status not in (404, 405):
                self._metrics.observe(record.labels, status, total if record.is_asked else None)
                if record.choice is not None:
                    self._metrics.observe_choice(record.labels, record.choice.missed)
            self._log.note(scope, record, status, total)

    async def _check_and_answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        record: Record = scope["state"]["record"]
        try:
            self._check_key(scope, headers)
            self._check_room(scope)
            body = await self._read_body(receive, headers)
            record.body_s = time.perf_counter() - record.arrived
            if not _may_be_binary(scope["path"]):
                check_nesting(body)
        except RequestError as error:
            await error_response(error, scope["path"])(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    def _check_key(self, scope: Scope, headers: Headers) -> None:
        if self._server.api_key is None or _route_path(scope) in self._open_paths:
            return
        expected = self._server.api_key.get_secret_value()
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Headers were decoded as Latin-1, whatever the client meant.
        same = hmac.compare_digest(given.encode("latin-1"), expected.encode())
        if scheme.lower() != "bearer" or not same:
            raise Unauthorized("send the key as Authorization: Bearer KEY", param="authorization")

    def _check_room(self, scope: Scope) -> None:
        """A queue bounds what waits for a variant; this, what a process holds in all."""
        limit = self._server.max_requests_under_way
        if scope["method"] == "POST" and self.in_flight > limit:
            raise QueueFull(
                f"{limit} requests are under way here (server.max_requests_under_way); retry later",
                retry_after_s=1,
            )

    async def _read_body(self, receive: Receive, headers: Headers) -> bytes:
        limit = self._server.max_body_bytes
        declared = headers.get("content-length", "0")
        if declared.isascii() and declared.isdigit() and int(declared) > limit + DISCARDED_BYTES:
            raise TooLarge(f"the body has {declared} bytes; the limit is {limit}")
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._server.request_timeout_s):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise asyncio.CancelledError
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > limit + DISCARDED_BYTES:
                        break
                    if size <= limit:
                        chunks.append(chunk)
                    more = message.get("more_body", False)
        except TimeoutError:
            raise BodyTooSlow(
                f"the body did not arrive within {self._server.request_timeout_s:g} s"
            ) from None
        if size > limit:
            raise TooLarge(f"the body has more than {limit} bytes, the limit")
        return inflate(b"".join(chunks), headers.get("content-encoding", ""), limit)


def _replay(body: bytes, receive: Receive) -> Receive:
    delivered = False

    async def receive_again() -> Message:
        nonlocal delivered
        if delivered:
            return await receive()
        delivered = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


def _request_id(headers: Headers) -> str:
    """The client's id, or the one that Ray Serve has put there.

    Ray Serve also writes it into the answer, as ``X-Request-Id``.
    """
    given = headers.get("x-request-id", "")[:MAX_REQUEST_ID]
    # Bytes that are no ASCII were decoded as Latin-1, where some end a line.
    return "".join(c if " " <= c <= "~" else "?" for c in given) or uuid.uuid4().hex


def _route_path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _may_be_binary(path: str) -> bool:
    """Whether tensors may follow the JSON of a body; then the route finds where it ends."""
    return is_open_inference(path) and path.endswith("/infer")


def _set_headers(headers: MutableHeaders, record: Record, total: float) -> None:
    if record.labels is not None:
        headers["X-Model"] = record.labels.model
        headers["X-Variant"] = record.labels.variant
    if record.choice is not None:
        headers["X-Variant-Reason"] = record.choice.reason
        if record.choice.missed:
            headers["X-SLO-Missed"] = ", ".join(record.choice.missed)
    headers["Server-Timing"] = ", ".join(
        f"{name};dur={seconds * 1e3:.3f}" for name, seconds in record.phases_of(total)
    )
