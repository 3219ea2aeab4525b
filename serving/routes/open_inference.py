"""The Open Inference Protocol v2 over REST; a version is a variant, or ``auto``.

Which tensors a model has, its task says. A model that generates text has none: it only tells its
versions and whether it is ready.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from serving import __version__
from serving.config import AUTO
from serving.errors import InvalidField, NotReady
from serving.routes.asking import answer
from serving.routes.choosing import choose, resolve
from serving.routes.infer_bodies import (
    JSON_LENGTH,
    infer_schema,
    read_infer_body,
    read_json_object,
    split_binary,
)
from serving.routes.json_response import json_response
from serving.routes.path_choice import statuses_of
from serving.routes.selection import Choice
from serving.routes.tensors import metadata, read_inputs, write_outputs
from serving.seams import ServedModel, VariantStatus
from serving.tasks import TASKS

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

EXTENSIONS = ("binary_tensor_data",)


@router.get("")
async def server_metadata() -> Response:
    """Name and version of the server."""
    return json_response({"name": "quantserve", "version": __version__, "extensions": EXTENSIONS})


@router.get("/models")
async def list_models(request: Request) -> Response:
    """Names of the models, as KServe's clients ask for them."""
    names = dict.fromkeys(status.model for status in await statuses_of(request))
    return json_response({"models": list(names)})


@router.post("/repository/index")
async def repository_index(request: Request) -> Response:
    """Every model and version with its state, or with ``ready: true`` those that are ready."""
    body = await request.body()
    only_ready = read_json_object(body).get("ready", False) if body else False
    if not isinstance(only_ready, bool):
        raise InvalidField("ready: expected true or false", param="ready")
    return json_response(
        [
            {
                "name": status.model,
                "version": status.variant,
                "state": _repository_state(status),
                "reason": status.reason,
            }
            for status in await statuses_of(request)
            if status.ready or not only_ready
        ]
    )


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


@router.post("/models/{model}/infer", openapi_extra=infer_schema())
@router.post("/models/{model}/versions/{version}/infer", openapi_extra=infer_schema())
async def infer(request: Request, model: str, version: str | None = None) -> Response:
    """Answer every input; tensors may follow the JSON in binary, there and back."""
    body, binary = await read_infer_body(request)
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
        read_inputs(tensors, body.inputs, split_binary(body.inputs, binary)),
        truncate=body.parameters.truncate,
        options=body.parameters.options,
    )
    content: dict[str, Any] = {"model_name": served.name, "model_version": variant}
    if body.id is not None:
        content["id"] = body.id
    outputs, binary_outputs = write_outputs(tensors, outcome, wanted, body.is_binary)
    response = json_response({**content, "outputs": outputs})
    return _with_binary(response, binary_outputs) if binary_outputs else response


def _with_binary(response: Response, binary: bytes) -> Response:
    """An answer in JSON, followed by tensors in binary."""
    content = bytes(response.body)
    headers = {JSON_LENGTH: str(len(content))}
    return Response(content + binary, headers=headers, media_type="application/octet-stream")


def _repository_state(status: VariantStatus) -> str:
    if status.ready:
        return "READY"
    return "UNAVAILABLE" if status.failed else "LOADING"


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
