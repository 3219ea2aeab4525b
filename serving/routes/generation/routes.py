"""``POST /v1/completions`` and ``POST /v1/chat/completions``."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from serving.errors import InvalidField
from serving.routes.choosing import choose
from serving.routes.generation.answers import EVENTS, ChatAnswer, CompletionsAnswer
from serving.routes.generation.bodies import ChatBody, CompletionsBody
from serving.routes.generation.response import Delivery, GenerationResponse
from serving.routes.generation.writers import ChatWriter, CompletionWriter, Writer
from serving.routes.record import record_of
from serving.routes.services import services_of

router = APIRouter(prefix="/v1", tags=["generation"])


@router.post("/completions", response_model=CompletionsAnswer, responses=EVENTS)
async def completions(request: Request, body: CompletionsBody) -> Response:
    """Continue each prompt."""
    return await _generate(request, body, CompletionWriter(body.logprobs is not None))


@router.post("/chat/completions", response_model=ChatAnswer, responses=EVENTS)
async def chat_completions(request: Request, body: ChatBody) -> Response:
    """Answer a chat."""
    return await _generate(request, body, ChatWriter(body.logprobs))


async def _generate(request: Request, body: CompletionsBody | ChatBody, writer: Writer) -> Response:
    services = services_of(request)
    model, variant = await choose(request, body.models, body.variants, body.slo, kind="generator")
    generation = body.to_request(services.server)
    num_choices = max(len(generation.prompts), 1) * generation.n
    if num_choices > services.server.max_inputs:
        raise InvalidField(
            f"{num_choices} choices; at most {services.server.max_inputs} in one request",
            param="n",
        )
    delivery = Delivery(
        model=f"{model.name}:{variant}",
        num_choices=num_choices,
        stream=generation.stream,
        include_usage=body.include_usage,
        continuous_usage=body.continuous_usage,
    )
    record = record_of(request)
    generation = record.within_time(generation)
    record.is_asked = True
    pieces = services.backends.generator(model.name, variant).stream(generation)
    return GenerationResponse(pieces, writer, delivery, record)
