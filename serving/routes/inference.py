"""The OpenAI-compatible inference routes."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response

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
from serving.seams import NO_OPTIONS, AnswerOptions, Outcome, ServedModel
from serving.tasks import TASKS

router = APIRouter(prefix="/v1", tags=["inference"])


@router.post("/embeddings", response_model=EmbeddingsAnswer)
async def embeddings(request: Request, body: EmbeddingsBody) -> Response:
    """One vector per input."""
    model, variant, outcome = await _ask(request, "embeddings", body, body.options, body.token_ids)
    show = _show_base64 if body.encoding_format == "base64" else _show("embeddings")
    data = [
        {"object": "embedding", "index": index, **show(outcome, index)}
        for index in range(len(outcome.rows))
    ]
    return _list_answer(model, variant, outcome, data)


@router.post("/classify", response_model=ClassifyAnswer)
async def classify(request: Request, body: ClassifyBody) -> Response:
    """The most probable label of each input, with the probability of every label."""
    model, variant, outcome = await _ask(request, "classification", body)
    show = _show("classification")
    data = [{"index": index, **show(outcome, index)} for index in range(len(outcome.rows))]
    return _list_answer(model, variant, outcome, data)


def _show(task: str) -> Callable[[Outcome, int], dict[str, Any]]:
    show = TASKS[task].show
    assert show is not None  # as of every encoder's task
    return show


def _show_base64(outcome: Outcome, index: int) -> dict[str, Any]:
    return {"embedding": base64.b64encode(outcome.rows[index].astype("<f4").tobytes()).decode()}


async def _ask(
    request: Request,
    operation: str,
    body: InferenceBody,
    options: AnswerOptions = NO_OPTIONS,
    token_ids: tuple[tuple[int, ...], ...] = (),
) -> tuple[ServedModel, str, Outcome]:
    model, variant = await choose(request, body.models, body.variants, body.slo, task=operation)
    outcome = await answer(
        request,
        model,
        variant,
        body.texts,
        truncate=body.truncate,
        options=options,
        token_ids=token_ids,
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
