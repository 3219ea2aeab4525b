"""Asks one variant after the other the same, and measures its answer against the reference's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from serving.errors import InvalidField, RequestError
from serving.quality.agreement import (
    compare_classification,
    compare_tokens,
    cosine_similarities,
)
from serving.routes.generation.writers import figures
from serving.routes.inference import classification
from serving.routes.services import Services
from serving.seams import (
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

Ask = Callable[[str], Awaitable[dict[str, Any]]]
"""Variant to its answer, timings and measures; raises RequestError."""


async def ask_encoders(services: Services, model: ServedModel, request: InferenceRequest) -> Ask:
    """Ask the reference, and return what asks the others; without it there are no measures.

    Raises:
        InvalidField: The input is not valid for any variant.
    """
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


def ask_generators(services: Services, model: ServedModel, request: GenerationRequest) -> Ask:
    """Return what asks a variant, and has the reference score what it wrote."""

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
    with np.errstate(over="ignore"):  # a ratio beyond all floats is infinite, which JSON has not
        perplexity_ratio = float(np.exp(comparison.log_perplexity_ratio))
    return {
        "same_first_choice": comparison.agreement,
        "divergence": comparison.divergence,
        "perplexity_ratio": perplexity_ratio,
        "tokens": len(tokens),
    }


def _row(outcome: Outcome) -> dict[str, Any]:
    row = outcome.rows[0]
    return classification(outcome.labels, row) if outcome.labels else {"embedding": row}


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
