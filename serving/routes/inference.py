"""The OpenAI-compatible inference routes."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from serving.routes.asking import answer
from serving.routes.choosing import choose
from serving.routes.json_response import json_response
from serving.routes.schemas import (
    ClassifyAnswer,
    ClassifyBody,
    EmbeddingsAnswer,
    EmbeddingsBody,
    InferenceBody,
)
from serving.seams import Outcome, ServedModel

router = APIRouter(prefix="/v1", tags=["inference"])


@router.post("/embeddings", response_model=EmbeddingsAnswer)
async def embeddings(request: Request, body: EmbeddingsBody) -> Response:
    """One unit vector per input."""
    model, variant, outcome = await _ask(request, "embeddings", body, body.dimensions)
    rows: list[Any]
    if body.encoding_format == "base64":
        rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in outcome.rows]
    else:
        rows = list(outcome.rows)
    data = [
        {"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)
    ]
    return _list_answer(model, variant, outcome, data)


@router.post("/classify", response_model=ClassifyAnswer)
async def classify(request: Request, body: ClassifyBody) -> Response:
    """The most probable label of each input, with the probability of every label."""
    model, variant, outcome = await _ask(request, "classification", body)
    data = [
        {"index": index, **classification(outcome.labels, row)}
        for index, row in enumerate(outcome.rows)
    ]
    return _list_answer(model, variant, outcome, data)


def classification(labels: Sequence[str], row: NDArray[np.float32]) -> dict[str, Any]:
    """What ``Classification`` says of one text; ``row`` (labels,) is the probability of each."""
    return {
        "label": labels[int(row.argmax())],
        "score": float(row.max()),
        "scores": dict(zip(labels, row.tolist(), strict=True)),
    }


async def _ask(
    request: Request, operation: str, body: InferenceBody, dimensions: int | None = None
) -> tuple[ServedModel, str, Outcome]:
    model, variant = await choose(request, body.models, body.variants, body.slo, task=operation)
    outcome = await answer(
        request, model, variant, body.texts, truncate=body.truncate, dimensions=dimensions
    )
    return model, variant, outcome


def _list_answer(
    model: ServedModel, variant: str, outcome: Outcome, data: list[dict[str, Any]]
) -> Response:
    content = {
        "object": "list",
        "data": data,
        "model": f"{model.name}:{variant}",
        "usage": {"prompt_tokens": outcome.tokens, "total_tokens": outcome.tokens},
    }
    return json_response(content)
