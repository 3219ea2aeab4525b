"""The variant that a request's path has chosen, if it has."""

from __future__ import annotations

from fastapi import Request

from serving.routes.selection import Choice, select
from serving.routes.services import services_of
from serving.seams import VariantStatus

PREFIX = "/{path_model}/{path_variant}"
"""In front of a route in the gateway; a replica is mounted below its own."""


def path_choice(request: Request) -> tuple[str, str] | None:
    """Return model and variant as the path names them, whether or not they are served."""
    if "path_model" in request.path_params:
        return request.path_params["path_model"], request.path_params["path_variant"]
    return services_of(request).fixed


def check_path_choice(request: Request) -> None:
    """Raise ``Unknown`` if the path names a model or variant that is not served."""
    if (choice := path_choice(request)) is not None:
        model, variant = choice
        select(
            services_of(request).catalog, [Choice("the path", model)], [Choice("the path", variant)]
        )


async def statuses_of(request: Request) -> list[VariantStatus]:
    """State of the variant that the path names, or of all."""
    choice = path_choice(request)
    statuses = await services_of(request).backends.statuses()
    return [s for s in statuses if choice is None or (s.model, s.variant) == choice]
