"""Answers of the routes that generate, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Any, Literal

from serving.routes.schemas import Body
from serving.seams import EndReason, FinishReason


class PromptTokensDetails(Body):
    """``cached_tokens``: prompt tokens that were in the cache already."""

    cached_tokens: int


class GenerationUsage(Body):
    """Tokens of all prompts, each counted once, and of all choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class GenerationFigures(Body):
    """Where the time went inside the replica, in milliseconds; of several choices, the longest.

    ``queue_ms``, ``tokenize_ms``, ``core_wait_ms``, ``prefill_ms`` and ``decode_ms`` are also in
    ``Server-Timing``; ``core_wait_ms`` is no part of ``prefill_ms`` and ``decode_ms``.
    ``time_per_output_token_ms`` is null for one token, and for several choices.
    """

    queue_ms: float
    tokenize_ms: float
    core_wait_ms: float
    prefill_ms: float
    decode_ms: float
    total_ms: float
    time_to_first_token_ms: float
    time_per_output_token_ms: float | None


class CompletionLogprobs(Body):
    """Tokens of a choice; one that is a part of a character is written ``bytes:\\xNN``.

    ``text_offset`` is where a token begins in ``text``, in characters. The first token of a
    prompt has no log-probability.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(Body):
    """A continuation; choice ``i * n + j`` is the j-th of prompt i."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason


class CompletionsAnswer(Body):
    """Answer of ``POST /v1/completions``; ``model`` names the variant that answered."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: GenerationUsage
    quantserve: GenerationFigures


class RivalToken(Body):
    """A token, and its natural log-probability before temperature and penalties."""

    token: str
    logprob: float
    bytes: list[int]


class ChatToken(RivalToken):
    """A token of an answer, and the most probable ones in its place."""

    top_logprobs: list[RivalToken]


class ChatLogprobs(Body):
    """Tokens of a choice."""

    content: list[ChatToken]
    refusal: None


class AnsweredFunction(Body):
    """A function to be called, and its arguments: a JSON object as text."""

    name: str
    arguments: str


class AnsweredCall(Body):
    """A call of a tool that the model asks for."""

    id: str
    type: Literal["function"]
    function: AnsweredFunction


class ChatMessage(Body):
    """What the model said, and the tools that it asks to have called.

    ``tool_calls`` is left out where there is none; ``content`` is null where there is nothing else.
    """

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[AnsweredCall] | None = None


class ChatChoice(Body):
    """An answer to the chat."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: EndReason


class ChatAnswer(Body):
    """Answer of ``POST /v1/chat/completions``; ``model`` names the variant that answered."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: GenerationUsage
    quantserve: GenerationFigures


EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/event-stream": {
                "schema": {
                    "type": "string",
                    "description": "With `stream: true`: OpenAI's chunks as `data:` lines, in the "
                    "end `data: [DONE]`. An error that comes after the first chunk is "
                    '`data: {"error": …}` instead, and the last line.',
                }
            }
        }
    }
}
"""The streamed form of an answer, for the OpenAPI document."""
