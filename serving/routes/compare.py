"""``POST /v1/compare``: one input, every variant of a model, side by side."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from serving.config import ServerConfig
from serving.errors import InvalidField, RequestError
from serving.routes.generation.formats import ResponseFormat
from serving.routes.generation.messages import MessageBody, to_messages
from serving.routes.json_response import json_response
from serving.routes.quality import check_model
from serving.routes.record import record_of
from serving.routes.schemas import EmbeddingOptions, Text
from serving.routes.services import services_of
from serving.routes.side_by_side import Ask, ask_encoders, ask_generators
from serving.seams import GREEDY, GenerationRequest, InferenceRequest, ServedModel

router = APIRouter(prefix="/v1", tags=["quality"])

MAX_TOKENS = 128
"""As many as a trace has."""


class CompareBody(EmbeddingOptions):
    """``POST /v1/compare``.

    Attributes:
        model: Public name, without a variant: all of them answer.
        variants: Those that answer, if not all; the reference is asked for its part anyway.
        input: One text, or a pair ``[query, document]`` where the task takes pairs.
        messages: A chat to answer, in place of ``input``; only where text is generated.
        max_tokens: Most new tokens, the most probable one each time; only where text is generated.
        response_format: Likewise, and as there.
        truncate: Cut an over-long input instead of refusing it; not where text is generated, nor
            are the options of embeddings.
    """

    model: str
    variants: Annotated[list[str], Field(min_length=1)] | None = None
    # JSON has lists only, which strictly are no tuples.
    input: Text | Annotated[tuple[Text, Text], Field(strict=False)] | None = None
    messages: Annotated[list[MessageBody], Field(min_length=1)] | None = None
    max_tokens: int = Field(default=32, ge=1, le=MAX_TOKENS)
    response_format: ResponseFormat | None = None
    truncate: bool = False

    def check(self, model: ServedModel) -> None:
        """Raise ``InvalidField`` for what the model's task has no use for, or is missing."""
        if unknown := set(self.variants or ()).difference(model.variants):
            raise InvalidField(
                f"model {model.name!r} has no variant {min(unknown)!r}; served: "
                f"{', '.join(model.variants)}",
                param="variants",
            )
        is_generator = model.kind == "generator"
        useless = (
            ("truncate", *EmbeddingOptions.model_fields)
            if is_generator
            else ("max_tokens", "response_format")
        )
        if sent := self.model_fields_set.intersection(useless):
            raise InvalidField(
                f"{min(sent)}: model {model.name!r} serves {model.task}, which has no use for it; "
                "leave it out",
                param=min(sent),
            )
        if (self.input is None) == (self.messages is None):
            raise InvalidField("send either input or messages", param="input")
        if self.messages is not None and not is_generator:
            raise InvalidField(f"model {model.name!r} has no chat; send input", param="messages")
        if is_generator and isinstance(self.input, tuple):
            raise InvalidField(
                f"input: model {model.name!r} continues one text, not a pair", param="input"
            )

    def to_inference(self, timeout_s: float) -> InferenceRequest:
        """What an encoder is asked."""
        assert self.input is not None
        return InferenceRequest((self.input,), self.truncate, self.options, timeout_s)

    def to_generation(self, server: ServerConfig) -> GenerationRequest:
        """What a generator is asked."""
        return GenerationRequest(
            prompts=(self.input,) if isinstance(self.input, str) else (),
            messages=to_messages(self.messages or ()),
            n=1,
            max_tokens=self.max_tokens,
            sampling=GREEDY,
            stop=(),
            echo=False,
            stream=False,
            first_token_timeout_s=server.request_timeout_s,
            timeout_s=server.generation_timeout_s,
            trace=0,
            answer_schema=self.response_format.answer_schema() if self.response_format else None,
        )


@router.post("/compare")
async def compare(request: Request, body: CompareBody) -> Response:
    """Ask every variant, one after the other, and measure each answer against the reference's.

    One after the other, since variants that share the machine's cores would show each other's
    time instead of their own. A measure that is beyond all numbers is null.
    """
    services = services_of(request)
    model, server = services.catalog[check_model(services, body.model)], services.server
    body.check(model)
    is_generator = model.kind == "generator"
    record = record_of(request)
    left_s = record.time_left(
        server.generation_timeout_s if is_generator else server.request_timeout_s
    )
    deadline = asyncio.get_running_loop().time() + left_s
    if is_generator:
        ask = ask_generators(services, model, record.within_time(body.to_generation(server)))
    else:
        ask = await ask_encoders(services, model, body.to_inference(left_s))
    chosen = [name for name in model.variants if body.variants is None or name in body.variants]
    variants = sorted(chosen, key=lambda variant: variant != model.reference)
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
