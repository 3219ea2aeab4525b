"""``/``: the web console. Files of the package, which need no key; what they show does."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request, Response

from serving.console import FOLDER

PREFIX = "/console/"
INDEX = "index.html"

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        # Pictures of load tests' reports stand inside of them.
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""No script or style but the console's files, and no request to any other host."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Asked again each time, answered by 304: pages and service are of one version always.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class File:
    """A file as it is sent."""

    content: bytes
    media_type: str
    etag: str


def read_files(folder: Path = FOLDER) -> Mapping[str, File]:
    """Every file of the console by the path under which it is served; the page itself is ``/``."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in MEDIA_TYPES:
            content = path.read_bytes()
            name = path.relative_to(folder).as_posix()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found["/" if name == INDEX else PREFIX + name] = File(
                content, MEDIA_TYPES[path.suffix], etag
            )
    return found


def console_router(files: Mapping[str, File]) -> APIRouter:
    """A route for each of the files, and for no other path."""
    router = APIRouter(include_in_schema=False)
    for path, file in files.items():
        router.add_api_route(path, _sender(file), methods=["GET"])
    return router


def _sender(file: File) -> Callable[[Request], Awaitable[Response]]:
    async def send(request: Request) -> Response:
        headers = {**HEADERS, "ETag": file.etag}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)

    return send
