"""``GET /v1/models``: every variant, what it is and what it occupies."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response

from serving.errors import Unknown
from serving.recipes import RECIPES
from serving.routes.json_response import json_response
from serving.routes.path_choice import statuses_of
from serving.routes.selection import split_model
from serving.routes.services import Services, services_of
from serving.seams import VariantStatus

router = APIRouter(prefix="/v1/models", tags=["models"])
STARTED = int(time.time())


@router.get("")
async def list_models(request: Request) -> Response:
    """One entry per model and variant."""
    services = services_of(request)
    entries = [_entry(services, status) for status in await statuses_of(request)]
    return json_response({"object": "list", "data": entries})


@router.get("/{model_id:path}")
async def retrieve_model(request: Request, model_id: str) -> Response:
    """One entry, by its id ``model:variant``; by a model's name alone, its default variant's.

    An alias stands for the name.
    """
    services = services_of(request)
    statuses = await statuses_of(request)
    by_id = {_id(status): status for status in statuses}
    name, variant = split_model(services.catalog, model_id)
    of_model = [status for status in statuses if variant is None and status.model == name]
    status = _default(services, of_model) if of_model else by_id.get(f"{name}:{variant}")
    if status is None:
        raise Unknown(f"no model {model_id!r}; served: {', '.join(by_id)}", param="model")
    return json_response(_entry(services, status))


def _default(services: Services, statuses: list[VariantStatus]) -> VariantStatus:
    """State of a model's default variant; of ``auto``, or one beside the path, another's."""
    model = services.catalog[statuses[0].model]
    by_variant = {status.variant: status for status in statuses}
    preferred = (model.default_variant, model.reference, *by_variant)
    return next(by_variant[variant] for variant in preferred if variant in by_variant)


def _id(status: VariantStatus) -> str:
    return f"{status.model}:{status.variant}"


def _entry(services: Services, status: VariantStatus) -> dict[str, Any]:
    model = services.catalog[status.model]
    form = model.variants[status.variant]
    described = status.description
    agreement = described.prepared_agreement if described else None
    return {
        "id": _id(status),
        "object": "model",
        "created": STARTED,
        "owned_by": "quantserve",
        "quantserve": {
            "model": status.model,
            "variant": status.variant,
            "aliases": model.aliases,
            "task": model.task,
            "device": described.device if described else None,
            "isa": described.isa if described else None,
            "runtime": form.runtime,
            "recipe": form.recipe,
            "recipe_summary": RECIPES[form.recipe].summary,
            **({"adapter": form.adapter} if form.adapter else {}),
            "artifact": described.artifact if described else None,
            "weights_bytes": described.weights_bytes if described else None,
            "disk_bytes": described.disk_bytes if described else None,
            "kv_cache_bytes": described.kv_cache_bytes if described else None,
            "resident_bytes": described.resident_bytes if described else None,
            "private_bytes": described.private_bytes if described else None,
            "peak_bytes": described.peak_bytes if described else None,
            "load_seconds": described.load_seconds if described else None,
            "max_tokens": described.max_tokens if described else None,
            "width": described.width if described else None,
            "labels": described.labels if described else None,
            **({"prepared_agreement": asdict(agreement)} if agreement else {}),
            **({"remark": described.remark} if described and described.remark else {}),
            "draft": asdict(described.draft) if described and described.draft else None,
            "default": status.variant == model.default_variant,
            "reference": status.variant == model.reference,
            "ready": status.ready,
            "reason": status.reason or None,
            "replicas": status.replicas,
            "path": f"/{status.model}/{status.variant}",
        },
    }
