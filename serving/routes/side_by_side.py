"""Asks one variant after the other the same, and measures its answer against the reference's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from serving.errors import InvalidField, RequestError
from serving.quality.measures import plain
from serving.quality.token_agreement import compare_tokens
from serving.routes.generation.writers import figures
from serving.routes.services import Services
from serving.seams import (
    EncoderJudging,
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
from serving.tasks import TASKS

Ask = Callable[[str], Awaitable[dict[str, Any]]]
"""Variant to its answer, timings and measures; raises RequestError."""


async def ask_encoders(services: Services, model: ServedModel, request: InferenceRequest) -> Ask:
    """Ask the reference, and return what asks the others; without it there are no measures.

    Raises:
        InvalidField: The input is not valid for any variant.
    """
    backends, task = services.backends, TASKS[model.task]
    assert task.judging is not None  # no encoder's task is without, nor without the next
    assert task.show is not None
    judging, show = task.judging(), task.show
    reference: Outcome | None
    try:
        reference = await backends.encoder(model.name, model.reference).infer(request)
    except InvalidField:
        raise
    except RequestError:
        reference = None

    async def ask(variant: str) -> dict[str, Any]:
        outcome = reference
        if outcome is None or variant != model.reference:
            outcome = await backends.encoder(model.name, variant).infer(request)
        return {
            "answer": show(outcome, 0),
            "timings": _milliseconds(outcome.timings),
            "measures": None if reference is None else _row_measures(judging, outcome, reference),
        }

    return ask


def ask_generators(services: Services, model: ServedModel, request: GenerationRequest) -> Ask:
    """Return what asks a variant, and has the reference score what it wrote."""

    async def ask(variant: str) -> dict[str, Any]:
        text, answer = "", {}
        async for piece in services.backends.generator(model.name, variant).stream(request):
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
        scored = await services.backends.generator(model.name, model.reference).score(
            ScoreRequest(trace.prompt, tokens, services.server.request_timeout_s)
        )
        comparison = compare_tokens(trace.tokens, scored)
    except (RequestError, ValueError):  # there is no reference, or it has nothing to say
        return None
    return {
        "agreement": comparison.agreement,
        **plain(comparison.measures),
        "tokens": len(tokens),
    }


def _row_measures(
    judging: EncoderJudging, outcome: Outcome, reference: Outcome
) -> dict[str, float] | None:
    """The agreement is left out where it would take the probes."""
    row, expected = outcome.rows[0], reference.rows[0]
    try:
        measures = plain(judging.measures(row, expected))
        if judging.needs_probes:
            return measures
        return {"agreement": judging.agreement(row, expected, None), **measures}
    except ValueError:  # the reference's answer cannot be compared with
        return None


def _milliseconds(timings: Timings) -> dict[str, float]:
    return {
        "queue_ms": timings.queue * 1e3,
        "tokenize_ms": timings.tokenize * 1e3,
        "core_wait_ms": timings.core_wait * 1e3,
        "forward_ms": timings.forward * 1e3,
        "total_ms": timings.total * 1e3,
    }
