"""``POST /tokenize`` and ``POST /detokenize``, as vLLM's clients send them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from serving.errors import InvalidField
from serving.routes.choosing import choose
from serving.routes.generation.inert_fields import only
from serving.routes.generation.messages import MessageBody, to_messages
from serving.routes.generation.tools import Tools, to_tool_use
from serving.routes.json_response import json_response
from serving.routes.record import record_of
from serving.routes.schemas import Body, ChoosingBody, Text, TokenIds
from serving.routes.services import services_of
from serving.seams import TokenizedText, TokensRequest

router = APIRouter(tags=["generation"])


class TokenizeBody(ChoosingBody):
    """``POST /tokenize``: either with ``prompt`` or with ``messages``.

    Attributes:
        prompt: A text; special tokens are added as the model's tokenizer does.
        messages: A chat, in the model's template up to where the answer begins.
        tools: What the model is told of with the chat, as in ``POST /v1/chat/completions``.
        return_token_strs: Say what each token says, too.
        add_special_tokens: A prompt gets them from the tokenizer, and a chat from the template; so
            nothing but true is accepted with the one, and nothing but false with the other.
    """

    prompt: Text | None = None
    messages: Annotated[list[MessageBody], Field(min_length=1)] | None = None
    tools: Tools = Field(default_factory=list)
    return_token_strs: bool = False
    add_special_tokens: bool | None = None
    add_generation_prompt: Annotated[Any, only(True)] = None
    continue_final_message: Annotated[Any, only(False)] = None

    def check(self) -> None:
        """Raise ``InvalidField`` unless it asks for one thing that can be had."""
        if (self.prompt is None) == (self.messages is None):
            raise InvalidField("prompt: send either prompt or messages", param="prompt")
        is_prompt = self.prompt is not None
        if is_prompt and self.tools:
            raise InvalidField("tools: only with messages", param="tools")
        if self.add_special_tokens not in (None, is_prompt):
            raise InvalidField(
                f"add_special_tokens: not supported; leave it out or send {str(is_prompt).lower()}",
                param="add_special_tokens",
            )


class DetokenizeBody(ChoosingBody):
    """``POST /detokenize``: ids of the model's own tokenizer, fewer than it takes at once."""

    tokens: TokenIds


class TokenizeAnswer(Body):
    """Answer of ``POST /tokenize``; ``max_model_len`` is for prompt and continuation together."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeAnswer(Body):
    """Answer of ``POST /detokenize``."""

    prompt: str


@router.post("/tokenize", response_model=TokenizeAnswer)
async def tokenize(request: Request, body: TokenizeBody) -> Response:
    """The tokens of a text or a chat, however long the text."""
    body.check()
    messages = to_messages(body.messages or ())
    use = to_tool_use(body.tools, None, is_parallel=True)
    tools = () if use is None else use.tools
    asked = TokensRequest(body.prompt or "", messages, (), _timeout_s(request), tools)
    found = await _ask(request, body, asked)
    return json_response(
        {
            "count": len(found.tokens),
            "max_model_len": found.max_tokens,
            "tokens": found.tokens,
            "token_strs": found.names if body.return_token_strs else None,
        }
    )


@router.post("/detokenize", response_model=DetokenizeAnswer)
async def detokenize(request: Request, body: DetokenizeBody) -> Response:
    """The text of tokens; special ones by their names."""
    asked = TokensRequest("", (), tuple(body.tokens), _timeout_s(request))
    return json_response({"prompt": (await _ask(request, body, asked)).text})


async def _ask(request: Request, body: ChoosingBody, asked: TokensRequest) -> TokenizedText:
    model, variant = await choose(request, body.models, body.variants, body.slo, kind="generator")
    return await services_of(request).backends.generator(model.name, variant).tokens(asked)


def _timeout_s(request: Request) -> float:
    return record_of(request).time_left(services_of(request).server.request_timeout_s)
