"""The Open Inference Protocol v2 over REST; a version is a variant, or ``auto``.

Which tensors a model has, its task says. A model that generates text has none: it only tells its
versions and whether it is ready. The binary tensor extension is not offered.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from serving import __version__
from serving.config import AUTO
from serving.errors import InvalidField, NotReady
from serving.routes.asking import answer
from serving.routes.choosing import choose, resolve
from serving.routes.json_response import json_response
from serving.routes.path_choice import statuses_of
from serving.routes.schemas import Body, Slo, Text
from serving.routes.selection import Choice
from serving.routes.tensors import InputTensor, metadata, read_inputs, write_outputs
from serving.seams import ServedModel, VariantStatus
from serving.tasks import TASKS

router = APIRouter(prefix="/v2", tags=["open inference protocol"])


class Parameters(Slo):
    """Parameters of a request: as the fields of the same names in the OpenAI routes.

    The protocol's parameters are flat, so the limits of ``slo`` stand among them.
    """

    truncate: bool = False
    dimensions: int | None = Field(default=None, ge=1)


class RequestedOutput(Body):
    """An output tensor that the client wants; all of them if none is named."""

    name: Text


class InferBody(Body):
    """``POST /v2/models/{model}/infer``."""

    id: Text | None = None
    parameters: Parameters = Parameters()
    inputs: list[InputTensor] = Field(min_length=1)
    outputs: list[RequestedOutput] = Field(default_factory=list)


@router.get("")
async def server_metadata() -> Response:
    """Name and version of the server."""
    return json_response({"name": "quantserve", "version": __version__, "extensions": []})


@router.get("/models/{model}")
@router.get("/models/{model}/versions/{version}")
async def model_metadata(request: Request, model: str, version: str | None = None) -> Response:
    """Tensors of a model."""
    served, variant = _resolve(request, model, version)
    status = await _status(request, served, variant)
    width = status.description.width if status.description else -1
    tensors = TASKS[served.task].tensors
    return json_response(
        {
            "name": served.name,
            "versions": list(served.variants),
            "platform": served.variants[status.variant].runtime,
            "inputs": metadata(tensors.inputs, width) if tensors else [],
            "outputs": metadata(tensors.outputs, width) if tensors else [],
        }
    )


@router.get("/models/{model}/ready")
@router.get("/models/{model}/versions/{version}/ready")
async def model_ready(request: Request, model: str, version: str | None = None) -> Response:
    """200 if the variant answers requests, else 503 with the reason."""
    served, variant = _resolve(request, model, version)
    status = await _status(request, served, variant)
    if not status.ready:
        raise NotReady(f"{served.name}:{variant}: {status.reason}")
    return json_response({"name": served.name, "version": variant, "ready": True})


@router.post("/models/{model}/infer")
@router.post("/models/{model}/versions/{version}/infer")
async def infer(
    request: Request, body: InferBody, model: str, version: str | None = None
) -> Response:
    """Answer every input."""
    asked = [Choice("the route", model)], _versions(version)
    served, variant = await choose(request, *asked, body.parameters)
    tensors = TASKS[served.task].tensors
    if tensors is None:
        raise InvalidField(
            f"model {served.name!r} serves {served.task}, which has no tensors; use "
            "POST /v1/completions or /v1/chat/completions",
            param="model",
        )
    wanted = [output.name for output in body.outputs]
    known = [output.name for output in tensors.outputs]
    if unknown := [name for name in wanted if name not in known]:
        raise InvalidField(
            f"outputs: unknown {', '.join(unknown)}; known: {', '.join(known)}", param="outputs"
        )
    outcome = await answer(
        request,
        served,
        variant,
        read_inputs(tensors, body.inputs),
        truncate=body.parameters.truncate,
        dimensions=body.parameters.dimensions,
    )
    content: dict[str, Any] = {"model_name": served.name, "model_version": variant}
    if body.id is not None:
        content["id"] = body.id
    return json_response({**content, "outputs": write_outputs(tensors, outcome, wanted)})


def _resolve(request: Request, model: str, version: str | None) -> tuple[ServedModel, str]:
    return resolve(request, [Choice("the route", model)], _versions(version))


def _versions(version: str | None) -> list[Choice]:
    return [] if version is None else [Choice("the route's version", version)]


async def _status(request: Request, model: ServedModel, variant: str) -> VariantStatus:
    """State of a variant; of ``auto``, that of the first that is ready, or of the reference."""
    of_model = [s for s in await statuses_of(request) if s.model == model.name]
    if variant != AUTO:
        return next(s for s in of_model if s.variant == variant)
    ready = [s for s in of_model if s.ready]
    reference = [s for s in of_model if s.variant == model.reference]
    return [*ready, *reference][0]
