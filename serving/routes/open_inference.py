"""The Open Inference Protocol v2 over REST; a version is a variant, or ``auto``.

One input ``text`` (BYTES, one text per element). Outputs: ``embedding`` FP32 [texts, width] for
embeddings; ``label`` BYTES [texts], ``score`` FP32 [texts] and ``scores`` FP32 [texts, labels] for
classification. A model that generates text has no tensors: it only tells its versions and whether
it is ready. The binary tensor extension is not offered.
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from serving import __version__
from serving.config import AUTO
from serving.errors import InvalidField, NotReady
from serving.routes.asking import answer
from serving.routes.choosing import choose, resolve
from serving.routes.json_response import json_response
from serving.routes.path_choice import statuses_of
from serving.routes.schemas import Slo, Text
from serving.routes.selection import Choice
from serving.runtimes import get_variant
from serving.seams import Outcome, ServedModel, VariantStatus

router = APIRouter(prefix="/v2", tags=["open inference protocol"])


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Parameters(Slo):
    """Parameters of a request: as the fields of the same names in the OpenAI routes.

    The protocol's parameters are flat, so the limits of ``slo`` stand among them.
    """

    truncate: bool = False
    dimensions: int | None = Field(default=None, ge=1)


class InputTensor(_Body):
    """The texts."""

    name: Literal["text"]
    shape: list[int] = Field(min_length=1, max_length=2)
    datatype: Literal["BYTES"]
    data: list[Text] | list[list[Text]]


class RequestedOutput(_Body):
    """An output tensor that the client wants; all of them if none is named."""

    name: Text


class InferBody(_Body):
    """``POST /v2/models/{model}/infer``."""

    id: Text | None = None
    parameters: Parameters = Parameters()
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[RequestedOutput] = Field(default_factory=list)

    def texts(self) -> tuple[str, ...]:
        """The texts, with the declared shape checked.

        Raises:
            InvalidField: There is no text, or the shape does not fit the data.
        """
        tensor = self.inputs[0]
        texts = tuple(
            text for row in tensor.data for text in ([row] if isinstance(row, str) else row)
        )
        size = 1
        for dimension in tensor.shape:
            size *= dimension
        if size != len(texts) or tensor.shape[1:] not in ([], [1]):
            raise InvalidField(
                f"inputs[0].shape {tensor.shape} does not fit {len(texts)} texts; "
                f"expected [{len(texts)}]",
                param="inputs",
            )
        if not texts:
            raise InvalidField("inputs[0].data: at least one text is needed", param="inputs")
        return texts


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
    return json_response(
        {
            "name": served.name,
            "versions": list(served.variants),
            "platform": get_variant(status.variant).runtime,
            "inputs": _input_metadata(served.task),
            "outputs": _output_metadata(served.task, width),
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
    """Answer every text."""
    asked = [Choice("the route", model)], _versions(version)
    served, variant = await choose(request, *asked, body.parameters)
    if not _input_metadata(served.task):
        raise InvalidField(
            f"model {served.name!r} serves {served.task}, which has no tensors; use "
            "POST /v1/completions or /v1/chat/completions",
            param="model",
        )
    wanted = [output.name for output in body.outputs]
    known = [output["name"] for output in _output_metadata(served.task, -1)]
    if unknown := [name for name in wanted if name not in known]:
        raise InvalidField(
            f"outputs: unknown {', '.join(unknown)}; known: {', '.join(known)}", param="outputs"
        )
    outcome = await answer(
        request,
        served,
        variant,
        body.texts(),
        truncate=body.parameters.truncate,
        dimensions=body.parameters.dimensions,
    )
    tensors = [
        tensor
        for tensor in _output_tensors(served.task, outcome)
        if not wanted or tensor["name"] in wanted
    ]
    content: dict[str, Any] = {"model_name": served.name, "model_version": variant}
    if body.id is not None:
        content["id"] = body.id
    return json_response({**content, "outputs": tensors})


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


def _input_metadata(task: str) -> list[dict[str, Any]]:
    if task in ("embeddings", "classification"):
        return [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    return []


def _output_metadata(task: str, width: int) -> list[dict[str, Any]]:
    if task == "embeddings":
        return [{"name": "embedding", "datatype": "FP32", "shape": [-1, width]}]
    if task == "classification":
        return [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "score", "datatype": "FP32", "shape": [-1]},
            {"name": "scores", "datatype": "FP32", "shape": [-1, width]},
        ]
    return []


def _output_tensors(task: str, outcome: Outcome) -> list[dict[str, Any]]:
    rows = outcome.rows
    if task == "embeddings":
        return [_tensor("embedding", "FP32", list(rows.shape), rows.ravel())]
    labels = [outcome.labels[int(row.argmax())] for row in rows]
    return [
        _tensor("label", "BYTES", [len(rows)], labels),
        _tensor("score", "FP32", [len(rows)], rows.max(axis=1)),
        _tensor("scores", "FP32", list(rows.shape), rows.ravel()),
    ]


def _tensor(name: str, datatype: str, shape: list[int], data: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}
