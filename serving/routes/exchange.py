"""What one HTTP exchange needs: the services behind the routes and the record of the request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from fastapi import Request

from serving.config import AUTO, ServerConfig
from serving.errors import InvalidField
from serving.metrics import Labels
from serving.routes.limits import HEADERS, read_limits
from serving.routes.schemas import Slo
from serving.routes.selection import VARIANT_HEADER, Choice, select
from serving.seams import (
    NO_LIMITS,
    AutoChoice,
    Backends,
    InferenceRequest,
    Outcome,
    QualityBoard,
    ServedModel,
    VariantChooser,
    VariantStatus,
)


@dataclass(frozen=True, slots=True)
class Services:
    """What the routes stand on, in the gateway as in a replica.

    Attributes:
        catalog: The models that can be chosen, by name.
        backends: Where their backends are found.
        server: Limits and key.
        fixed: The model and variant that the path has chosen already, in a replica.
        board: Where quality is known; None in a replica.
        chooser: Chooses where a request says ``auto``; None in a replica.
    """

    catalog: Mapping[str, ServedModel]
    backends: Backends
    server: ServerConfig
    fixed: tuple[str, str] | None = None
    board: QualityBoard | None = None
    chooser: VariantChooser | None = None


@dataclass(slots=True)
class Record:
    """The one record of a request; feeds headers, metrics and the log line.

    Attributes:
        request_id: The client's, or one of our own.
        labels: The variant that answers, once it is known; ``auto`` until it is chosen.
        choice: Why it answers, if ``auto`` chose it.
        phases: Where the time has gone, in seconds, as far as it is known.
        failure: Status of an error that came after the status was sent, and that the request is
            counted under.
    """

    request_id: str
    labels: Labels | None = None
    choice: AutoChoice | None = None
    phases: dict[str, float] = field(default_factory=dict)
    failure: int | None = None


def services_of(request: Request) -> Services:
    """Return the services of the application that got ``request``."""
    return cast(Services, request.app.state.services)


def record_of(request: Request) -> Record:
    """Return the record of ``request``."""
    return cast(Record, request.state.record)


async def choose(
    request: Request,
    operation: str | None,
    models: list[Choice],
    variants: list[Choice],
    slo: Slo | None,
) -> tuple[ServedModel, str]:
    """Resolve the variant that a request asks for, and note it in the record.

    Args:
        request: Its path and its ``X-Variant`` header may name a variant.
        operation: The task that the route serves; None if it looks after that itself.
        models: Places of the body or the route's own path that name a model.
        variants: Likewise for a variant.
        slo: Limits that the body states for ``auto``.

    Raises:
        RequestError: Anything that ``select``, ``read_limits`` or ``VariantChooser.choose`` raises.
        InvalidField: The model has another task, or limits are stated for a variant that is chosen
            already.
    """
    model, variant = resolve(request, models, variants)
    record = record_of(request)
    record.labels = Labels(model.name, variant, model.task)
    if operation not in (None, model.task):
        raise InvalidField(
            f"model {model.name!r} serves {model.task}, this route {operation}", param="model"
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


async def answer(
    request: Request,
    model: ServedModel,
    variant: str,
    texts: tuple[str, ...],
    *,
    truncate: bool,
    dimensions: int | None = None,
) -> Outcome:
    """Ask the backend of a variant for a row per text, and note the time in the record.

    Raises:
        RequestError: Anything that ``Backend.infer`` raises.
        InvalidField: There are too many texts.
    """
    services = services_of(request)
    if len(texts) > services.server.max_inputs:
        raise InvalidField(
            f"{len(texts)} inputs; at most {services.server.max_inputs} in one request",
            param="input",
        )
    outcome = await services.backends.backend(model.name, variant).infer(
        InferenceRequest(texts, truncate, dimensions, services.server.request_timeout_s)
    )
    timings = outcome.timings
    record_of(request).phases = {
        "queue": timings.queue,
        "tokenize": timings.tokenize,
        "forward": timings.forward,
    }
    return outcome


def resolve(
    request: Request, models: list[Choice], variants: list[Choice]
) -> tuple[ServedModel, str]:
    """Resolve model and variant from the path, the header and what the route adds.

    The variant may be ``auto``, where a chooser is.
    """
    services = services_of(request)
    fixed = _path_choice(request)
    headers = request.headers.getlist(VARIANT_HEADER)
    return select(
        services.catalog,
        [*([Choice("the path", fixed[0])] if fixed else []), *models],
        [
            *([Choice("the path", fixed[1])] if fixed else []),
            *(Choice("header X-Variant", variant) for variant in headers),
            *variants,
        ],
        has_auto=services.chooser is not None,
    )


def check_path_choice(request: Request) -> None:
    """Raise ``Unknown`` if the path names a model or variant that is not served."""
    if (choice := _path_choice(request)) is not None:
        model, variant = choice
        select(
            services_of(request).catalog, [Choice("the path", model)], [Choice("the path", variant)]
        )


async def statuses_of(request: Request) -> list[VariantStatus]:
    """State of the variant that the path names, or of all."""
    choice = _path_choice(request)
    statuses = await services_of(request).backends.statuses()
    return [s for s in statuses if choice is None or (s.model, s.variant) == choice]


def _path_choice(request: Request) -> tuple[str, str] | None:
    if "path_model" in request.path_params:
        return request.path_params["path_model"], request.path_params["path_variant"]
    return services_of(request).fixed
