"""``POST /v1/compare``: one input, every variant of a model, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import exp, inf
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from serving.errors import InvalidField, RequestError
from serving.quality.agreement import (
    compare_classification,
    compare_tokens,
    cosine_similarities,
)
from serving.routes.exchange import Services, services_of
from serving.routes.generation.bodies import MessageBody
from serving.routes.generation.writers import figures
from serving.routes.json_response import json_response
from serving.routes.quality import check_model
from serving.routes.schemas import Body, Text
from serving.seams import (
    GREEDY,
    GenerationChunk,
    GenerationRequest,
    GenerationSummary,
    InferenceRequest,
    Outcome,
    ScoreRequest,
    ServedModel,
    Timings,
    Trace,
)

router = APIRouter(prefix="/v1", tags=["quality"])

MAX_TOKENS = 128
"""As many as a trace has."""

LARGEST_EXPONENT = 700.0
"""``exp`` of more is no float."""

Ask = Callable[[str], Awaitable[dict[str, Any]]]
"""Variant to its part of the answer; raises NotReady."""


class CompareBody(Body):
    """``POST /v1/compare``.

    Attributes:
        model: Public name, without a variant: all of them answer.
        input: One text to embed, to classify or to continue.
        messages: A chat to answer, in place of ``input``.
        max_tokens: Most new tokens where text is generated; the most probable one is taken each
            time.
        truncate: Cut an over-long input instead of refusing it; not where text is generated.
    """

    model: str
    input: Text | None = None
    messages: Annotated[list[MessageBody], Field(min_length=1)] | None = None
    max_tokens: int = Field(default=32, ge=1, le=MAX_TOKENS)
    truncate: bool = False


@router.post("/compare")
async def compare(request: Request, body: CompareBody) -> Response:
    """Ask every variant, one after the other, and measure each answer against the reference's.

    One after the other, since variants that share the machine's cores would show each other's
    time instead of their own.
    """
    services = services_of(request)
    check_model(services, body.model)
    if (body.input is None) == (body.messages is None):
        raise InvalidField("send either input or messages", param="input")
    model = services.catalog[body.model]
    server = services.server
    is_generator = model.task == "generation"
    limit = server.generation_timeout_s if is_generator else server.request_timeout_s
    deadline = asyncio.get_running_loop().time() + limit
    asks = _asks_generator if is_generator else _asks_encoder
    ask = await asks(services, model, body)
    variants = sorted(model.variants, key=lambda variant: variant != model.reference)
    answers = [await _entry(ask, variant, deadline) for variant in variants]
    return json_response(
        {"object": "comparison", "model": model.name, "reference": model.reference, "data": answers}
    )


async def _entry(ask: Ask, variant: str, deadline: float) -> dict[str, Any]:
    """One variant's part; what is wrong with it alone must not cost the others' answers."""
    try:
        async with asyncio.timeout_at(deadline):
            return {"variant": variant, **await ask(variant)}
    except InvalidField:
        raise
    except RequestError as error:
        return {"variant": variant, "error": error.message}
    except TimeoutError:
        return {"variant": variant, "error": "no time was left for it"}


async def _asks_encoder(services: Services, model: ServedModel, body: CompareBody) -> Ask:
    if body.input is None:
        raise InvalidField(f"model {model.name!r} has no chat; send input", param="messages")
    request = InferenceRequest(
        (body.input,), body.truncate, None, services.server.request_timeout_s
    )
    backends = services.backends
    reference: Outcome | None
    try:
        reference = await backends.backend(model.name, model.reference).infer(request)
    except InvalidField:
        raise
    except RequestError:
        reference = None

    async def ask(variant: str) -> dict[str, Any]:
        outcome = reference
        if outcome is None or variant != model.reference:
            outcome = await backends.backend(model.name, variant).infer(request)
        return {
            "answer": _row(outcome),
            "timings": _milliseconds(outcome.timings),
            "measures": None if reference is None else _row_measures(outcome, reference),
        }

    return ask


async def _asks_generator(services: Services, model: ServedModel, body: CompareBody) -> Ask:
    request = GenerationRequest(
        prompts=() if body.input is None else (body.input,),
        messages=tuple(message.to_message() for message in body.messages or ()),
        n=1,
        max_tokens=body.max_tokens,
        sampling=GREEDY,
        stop=(),
        echo=False,
        stream=False,
        first_token_timeout_s=services.server.request_timeout_s,
        timeout_s=services.server.generation_timeout_s,
        trace=True,
    )

    async def ask(variant: str) -> dict[str, Any]:
        text, answer = "", {}
        async for piece in services.backends.backend(model.name, variant).stream(request):
            if isinstance(piece, GenerationChunk):
                text += piece.text
            else:
                answer = await _generated(services, model, text, piece)
        return answer

    return ask


async def _generated(
    services: Services, model: ServedModel, text: str, summary: GenerationSummary
) -> dict[str, Any]:
    return {
        "answer": {"text": text, "tokens": summary.output_tokens},
        "timings": figures(summary, 1),
        "measures": await _token_measures(services, model, summary.traces[0]),
    }


async def _token_measures(
    services: Services, model: ServedModel, trace: Trace
) -> dict[str, Any] | None:
    tokens = tuple(token.token for token in trace.tokens)
    try:
        scored = await services.backends.backend(model.name, model.reference).score(
            ScoreRequest(trace.prompt, tokens, services.server.request_timeout_s)
        )
        comparison = compare_tokens(trace.tokens, scored)
    except (RequestError, ValueError):  # there is no reference, or it has nothing to say
        return None
    assert comparison.log_perplexity_ratio is not None
    ratio = comparison.log_perplexity_ratio
    return {
        "same_first_choice": comparison.agreement,
        "divergence": comparison.divergence,
        "perplexity_ratio": exp(ratio) if ratio < LARGEST_EXPONENT else inf,
        "tokens": len(tokens),
    }


def _row(outcome: Outcome) -> dict[str, Any]:
    row = outcome.rows[0]
    if not outcome.labels:
        return {"embedding": row}
    return {
        "label": outcome.labels[int(row.argmax())],
        "score": float(row.max()),
        "scores": dict(zip(outcome.labels, row.tolist(), strict=True)),
    }


def _row_measures(outcome: Outcome, reference: Outcome) -> dict[str, Any] | None:
    if not outcome.labels:
        return {"cosine": float(cosine_similarities(outcome.rows, reference.rows)[0])}
    try:
        comparison = compare_classification(outcome.rows[0], reference.rows[0])
    except ValueError:  # the reference's row is no probabilities
        return None
    return {
        "same_label": comparison.agreement == 1,
        "probability_change": comparison.probability_change,
        "divergence": comparison.divergence,
    }


def _milliseconds(timings: Timings) -> dict[str, float]:
    return {
        "queue_ms": timings.queue * 1e3,
        "tokenize_ms": timings.tokenize * 1e3,
        "forward_ms": timings.forward * 1e3,
        "total_ms": timings.total * 1e3,
    }
