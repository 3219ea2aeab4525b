"""Liveness and readiness."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from serving.routes.json_response import json_response
from serving.routes.path_choice import statuses_of
from serving.seams import VariantStatus

router = APIRouter(tags=["health"])


@router.get("/healthz")
@router.get("/v2/health/live")
async def live() -> Response:
    """200 as long as the process answers."""
    return json_response({"live": True})


@router.get("/v2/health/ready")
async def ready(request: Request) -> Response:
    """200 once every configured variant answers; before that 503 with those that do not and why."""
    statuses = await statuses_of(request)
    missing = [s for s in statuses if not s.ready]
    if not missing:
        return json_response({"ready": True})
    not_ready = [_entry(s) for s in missing]
    names = ", ".join(f"{s.model}:{s.variant}" for s in missing)
    return json_response(
        {"ready": False, "error": f"not ready: {names}", "not_ready": not_ready}, 503
    )


def _entry(status: VariantStatus) -> dict[str, Any]:
    return {
        "model": status.model,
        "variant": status.variant,
        "failed": status.failed,
        "reason": status.reason,
    }
