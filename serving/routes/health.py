"""Liveness and readiness."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Request, Response

from serving.routes.json_response import json_response
from serving.routes.path_choice import statuses_of
from serving.seams import VariantStatus

router = APIRouter(tags=["health"])

LIVE = ("/health", "/healthz", "/v2/health/live")
READY = "/v2/health/ready"


def health_paths(prefixes: Iterable[str]) -> frozenset[str]:
    """Every path of these routes below each prefix; none of them needs the key."""
    return frozenset(prefix + path for prefix in prefixes for path in (*LIVE, READY))


async def live() -> Response:
    """200 as long as the process answers."""
    return json_response({"live": True})


async def ready(request: Request) -> Response:
    """200 once every configured variant answers; before that 503: how many are how far, and
    those that do not, with the reason."""
    statuses = await statuses_of(request)
    missing = [s for s in statuses if not s.ready]
    if not missing:
        return json_response({"ready": True})
    not_ready = [_entry(s) for s in missing]
    names = ", ".join(f"{s.model}:{s.variant}" for s in missing)
    return json_response(
        {
            "ready": False,
            "error": f"not ready: {names}",
            "states": Counter(s.state for s in statuses),
            "not_ready": not_ready,
        },
        503,
    )


def _entry(status: VariantStatus) -> dict[str, Any]:
    return {
        "model": status.model,
        "variant": status.variant,
        "state": status.state,
        "failed": status.failed,
        "reason": status.reason,
    }


for _path in LIVE:
    router.add_api_route(_path, live, methods=["GET"])
router.add_api_route(READY, ready, methods=["GET"])
