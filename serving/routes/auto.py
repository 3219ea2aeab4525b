"""``GET /v1/auto``: what ``auto`` would choose for some limits, and why."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from serving.errors import NotReady
from serving.routes.json_response import json_response
from serving.routes.limits import parse_limit
from serving.routes.quality import check_model, check_query
from serving.routes.services import services_of
from serving.seams import Limits
from serving.seams.auto import Considered

router = APIRouter(prefix="/v1", tags=["auto"])


@router.get("/auto")
async def auto(
    request: Request,
    model: str,
    max_latency_ms: str | None = None,
    min_quality: str | None = None,
    max_weights_bytes: str | None = None,
) -> Response:
    """What a request with these limits would get now, and what every variant offers.

    Nothing is sent to a variant, and the choices of later requests do not depend on this one.
    """
    services = services_of(request)
    check_query(request, "model", "max_latency_ms", "min_quality", "max_weights_bytes")
    name = check_model(services, model)
    if services.chooser is None:
        raise NotReady("nothing chooses here")
    latency_ms = parse_limit("max_latency_ms", max_latency_ms)
    limits = Limits(
        max_latency_s=None if latency_ms is None else latency_ms / 1e3,
        min_quality=parse_limit("min_quality", min_quality),
        max_weights_bytes=parse_limit("max_weights_bytes", max_weights_bytes),
    )
    view = await services.chooser.explain(name, limits)
    return json_response(
        {
            "object": "auto",
            "model": name,
            "policy": view.policy,
            "choice": None if view.choice is None else view.choice.variant,
            "reason": view.refusal if view.choice is None else view.choice.reason,
            "missed": [] if view.choice is None else view.choice.missed,
            "data": [_entry(variant) for variant in view.variants],
        }
    )


def _entry(considered: Considered) -> dict[str, Any]:
    return {
        "variant": considered.variant,
        "in": not considered.out,
        "reason": considered.out,
        "missed": considered.missed,
        "p95_latency_ms": _ms(considered.p95_latency_s),
        "n": considered.num_measured,
        "measured_by": considered.origin,
        "cost_ms": _ms(considered.cost_s),
        "quality_low": considered.quality_low,
        "weights_bytes": considered.weights_bytes,
        "in_flight": considered.in_flight,
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3
