"""Other ways to ask the same: slashes too many, HEAD for GET, a compressed body, HTTP/1.0."""

from __future__ import annotations

import re
import zlib

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Scope, Send

from serving.errors import Malformed, TooLarge

ENCODINGS = ("gzip", "deflate")
"""Of a body, as its header Content-Encoding names them."""

OLD_NAMES = {"x-gzip": "gzip"}
"""Which HTTP says to take for the same."""

EITHER_HEADER = zlib.MAX_WBITS + 32
"""Makes zlib read gzip as well as its own format, which HTTP calls deflate."""


def as_plain(scope: Scope, send: Send) -> tuple[Scope, Send]:
    """Return a request that the routes know in place of one that means the same.

    Double and trailing slashes go. HEAD becomes GET, and of its answer the body goes. An answer
    for HTTP/1.0, which knows no answer of unknown length but one that ends with the connection, is
    sent as one piece: else the server would frame its pieces in a way that only HTTP/1.1 has.
    """
    plain = {**scope, "path": _plain_path(scope["path"])}
    if scope.get("http_version") == "1.0":
        send = _send_whole(send)
    if scope["method"] != "HEAD":
        return plain, send

    async def send_no_body(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return {**plain, "method": "GET"}, send_no_body


def _send_whole(send: Send) -> Send:
    """Hold an answer back until all of it is there, and say how long it is."""
    parts: list[bytes] = []
    start: Message = {}

    async def send_whole(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            start = message
            return
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            body = b"".join(parts)
            MutableHeaders(scope=start).setdefault("Content-Length", str(len(body)))
            await send(start)
            await send({"type": "http.response.body", "body": body})

    return send_whole


def _plain_path(path: str) -> str:
    return re.sub("/+", "/", path).rstrip("/") or "/"


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo the compression of a body, never to more than one byte over the limit.

    Args:
        body: As it came.
        encoding: Value of the header Content-Encoding.
        limit: Most bytes of the inflated body.

    Raises:
        Malformed: The encoding is not known here, or the body does not have it.
        TooLarge: The inflated body is over the limit.
    """
    name = encoding.strip().lower()
    name = OLD_NAMES.get(name, name)
    if name in ("", "identity") or not body:
        return body
    if name not in ENCODINGS:
        raise Malformed(
            f"Content-Encoding {encoding!r} is not read here; send {' or '.join(ENCODINGS)}, "
            "or the body as it is",
            param="content-encoding",
        )
    parts: list[bytes] = []
    room = limit + 1
    rest = body
    # A gzip file may have several members; what follows the last is an error.
    while rest:
        stream = zlib.decompressobj(EITHER_HEADER)
        try:
            part = stream.decompress(rest, room)
        except zlib.error as error:
            raise _not_encoded(name, str(error)) from None
        parts.append(part)
        room -= len(part)
        if room == 0:
            raise TooLarge(f"the inflated body has more than {limit} bytes, the limit")
        if not stream.eof:
            raise _not_encoded(name, "it is cut off")
        rest = stream.unused_data
    return b"".join(parts)


def _not_encoded(name: str, why: str) -> Malformed:
    return Malformed(
        f"Content-Encoding says {name}, which the body is not: {why}", param="content-encoding"
    )
