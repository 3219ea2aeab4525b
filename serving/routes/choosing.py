"""Which variant answers a request: what it says in all its places, and ``auto``."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request

from serving.config import AUTO
from serving.errors import InvalidField
from serving.metrics import Labels
from serving.routes.limits import HEADERS, read_limits
from serving.routes.path_choice import path_choice
from serving.routes.record import record_of
from serving.routes.schemas import Slo
from serving.routes.selection import VARIANT_HEADER, Choice, select
from serving.routes.services import services_of
from serving.seams import NO_LIMITS, EngineKind, ServedModel

OPERATIONS: Mapping[EngineKind, str] = {"encoder": "encoding", "generator": "generation"}
"""What a route does that serves every task of a kind."""


async def choose(
    request: Request,
    models: list[Choice],
    variants: list[Choice],
    slo: Slo | None,
    *,
    task: str | None = None,
    kind: EngineKind | None = None,
) -> tuple[ServedModel, str]:
    """Resolve the variant that a request asks for, and note it in the record.

    Args:
        request: Its path and its ``X-Variant`` header may name a variant.
        models: Places of the body or the route's own path that name a model.
        variants: Likewise for a variant.
        slo: Limits that the body states for ``auto``.
        task: The only task that the route serves; None if it serves others.
        kind: The only kind of engine that the route serves; likewise.

    Raises:
        RequestError: Anything that ``select``, ``read_limits`` or ``VariantChooser.choose`` raises.
        InvalidField: The model has another task, or limits are stated for a variant that is chosen
            already.
    """
    model, variant = resolve(request, models, variants)
    record = record_of(request)
    record.labels = Labels(model.name, variant, model.task)
    if task not in (None, model.task) or kind not in (None, model.kind):
        served = task or OPERATIONS[kind or model.kind]
        raise InvalidField(
            f"model {model.name!r} serves {model.task}, this route {served}", param="model"
        )
    limits = read_limits(request.headers, slo)
    if variant == AUTO:
        chooser = services_of(request).chooser
        assert chooser is not None  # or ``auto`` would have been unknown
        record.choice = await chooser.choose(model.name, limits)
        variant = record.choice.variant
        record.labels = Labels(model.name, variant, model.task)
    elif limits != NO_LIMITS:
        raise InvalidField(
            f"limits ({', '.join(HEADERS)}) are for the variant {AUTO!r}; this request has the "
            f"variant {variant!r}. Ask for {model.name + ':' + AUTO!r} on the path without a "
            "variant, or leave the limits out",
            param="slo",
        )
    return model, variant


def resolve(
    request: Request, models: list[Choice], variants: list[Choice]
) -> tuple[ServedModel, str]:
    """Resolve model and variant from the path, the header and what the route adds.

    The variant may be ``auto``, where a chooser is.
    """
    services = services_of(request)
    in_path = path_choice(request)
    headers = request.headers.getlist(VARIANT_HEADER)
    return select(
        services.catalog,
        [*([Choice("the path", in_path[0])] if in_path else []), *models],
        [
            *([Choice("the path", in_path[1])] if in_path else []),
            *(Choice("header X-Variant", variant) for variant in headers),
            *variants,
        ],
        has_auto=services.chooser is not None,
    )
