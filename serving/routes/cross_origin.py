"""Lets web pages of other origins use the service, if the configuration names them."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

METHODS = ("GET", "HEAD", "POST")

READABLE = (
    "X-Model",
    "X-Variant",
    "X-Variant-Reason",
    "X-SLO-Missed",
    "X-Request-Id",
    "Server-Timing",
    "Retry-After",
    "Inference-Header-Content-Length",
)
"""Headers of an answer that such a page may read."""


def open_to(origins: Sequence[str], app: ASGIApp) -> ASGIApp:
    """Answer preflights and mark answers for pages of these origins; for none, ``app`` as it is.

    Keys come in the header Authorization only, so no page can use what a browser has kept.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=METHODS,
        allow_headers=["*"],
        expose_headers=READABLE,
    )
