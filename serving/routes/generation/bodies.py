"""Bodies of the OpenAI routes that generate.

They follow OpenAI's API: ``null`` means that a field is left out, and the defaults are the same.
Unknown fields are refused. Fields that OpenAI or vLLM has and quantserve does not are accepted only
at the values that do nothing (``inert_fields``). So are values that mean "none"
elsewhere: -1 as seed, ``top_k`` or ``max_tokens``.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
)

from serving.config import ServerConfig
from serving.errors import InvalidField
from serving.routes.generation.formats import ResponseFormat
from serving.routes.generation.inert_fields import InertFields, only
from serving.routes.generation.messages import MessageBody, to_messages
from serving.routes.generation.tools import ToolChoice, Tools, to_tool_use
from serving.routes.schemas import Body, Inputs, Text, as_tuple
from serving.seams import GenerationRequest, Message, Sampling, ToolUse

MAX_SEED = 2**62
"""The j-th choice is sampled with ``seed + j``, which has to fit 64 bits too.

Others of 64 bits, signed or not, stand for the one that they leave when divided by all there are.
"""

MAX_STOPS = 16
"""OpenAI has 4, and other servers have more; each is looked for in all that is generated."""

MAX_BIASES = 1_024
"""Tokens of one ``logit_bias``; each step adds them all."""

NONE = -1
"""Means "none" where a number is asked for, to the clients of several servers."""


def _none_as(value: int | None) -> BeforeValidator:
    """Read -1 as the value that means none here."""
    return BeforeValidator(lambda given: value if given == NONE else given)


def _read_ids(value: object) -> object:
    """Make numbers of a JSON object's names, which are texts always."""
    if not isinstance(value, dict):
        return value
    for key in value:
        if not (isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 10):
            raise ValueError(f'{key!r} is no token id; the names are ids, e.g. {{"50256": -100}}')
    if len({int(key) for key in value}) < len(value):
        raise ValueError("a token id is given twice")
    return {int(key): bias for key, bias in value.items()}


LogitBias = Annotated[
    dict[int, Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=MAX_BIASES),
    BeforeValidator(_read_ids),
]


class StreamOptions(Body):
    """How to stream.

    Attributes:
        include_usage: Send the token counts and the timings in a last chunk of their own.
        continuous_usage_stats: Send with each chunk the token counts of its choice so far.
    """

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: Annotated[Any, only(False)] = None


class GenerationBody(InertFields):
    """The fields that both routes have.

    Attributes:
        temperature: 0 takes the most probable token each time.
        top_p: Choose among the most probable tokens that together have this probability; 0 takes
            the most probable one.
        top_k: Choose among this many most probable tokens; 0 or -1 among all.
        seed: The same seed gives the same text; a random one is drawn if it is left out, or -1.
        min_p: Leave out tokens that are less than so many times as probable as the most probable.
        stop: Texts that end a choice; they are left out of it.
        n: Choices for each prompt.
        stream: Send each piece as a server-sent event as soon as it is there.
        frequency_penalty: Makes a token less probable each time that it was generated.
        presence_penalty: Makes a token less probable once it was generated.
        repetition_penalty: Above 1 it makes a token less probable that is in prompt or answer.
        logit_bias: Added to the logits of some tokens, by their ids.
        ignore_eos: Go on where the model would end, so that an answer has as many tokens as
            ``max_tokens`` says.
        min_tokens: Accepted where nothing ends an answer earlier: with ``ignore_eos``, without
            ``stop``.
        response_format: Have each answer be JSON, or JSON that follows a schema.
    """

    temperature: float = Field(default=1, ge=0, le=2)
    top_p: float = Field(default=1, ge=0, le=1)
    top_k: Annotated[int, Field(ge=0), _none_as(0)] = 0
    min_p: float = Field(default=0, ge=0, le=1)
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=MAX_STOPS)] = Field(default_factory=list)
    n: int = Field(default=1, ge=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    frequency_penalty: float = Field(default=0, ge=-2, le=2)
    presence_penalty: float = Field(default=0, ge=-2, le=2)
    repetition_penalty: float = Field(default=1, ge=0.01, le=100)
    logit_bias: LogitBias = Field(default_factory=dict)
    ignore_eos: bool = False
    min_tokens: int = Field(default=0, ge=0)
    response_format: ResponseFormat | None = None

    @field_validator("seed", mode="before")
    @classmethod
    def _is_drawn(cls, value: object) -> object:
        return None if value == NONE else value

    @field_validator("min_tokens")
    @classmethod
    def _is_met_anyway(cls, value: int, info: ValidationInfo) -> int:
        if value and (info.data.get("stop") or info.data.get("ignore_eos") is False):
            raise ValueError("only with ignore_eos: true and without stop; leave it out or send 0")
        return value

    @field_validator("stream_options")
    @classmethod
    def _only_of_a_stream(cls, value: StreamOptions, info: ValidationInfo) -> StreamOptions:
        if info.data.get("stream") is False:
            raise ValueError("only with stream: true")
        return value

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk of token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def continuous_usage(self) -> bool:
        """Whether each chunk of a stream has token counts."""
        return self.stream_options is not None and self.stream_options.continuous_usage_stats

    def _check_min_tokens(self, max_tokens: int | None) -> None:
        if max_tokens is not None and self.min_tokens > max_tokens:
            raise InvalidField(
                f"min_tokens is {self.min_tokens}, which is more than max_tokens, {max_tokens}",
                param="min_tokens",
            )

    def _answer_schema(self) -> Mapping[str, Any] | None:
        schema = None if self.response_format is None else self.response_format.answer_schema()
        if schema is not None and self.ignore_eos:
            raise InvalidField(
                "ignore_eos: an answer in JSON ends where it is complete; leave out ignore_eos or "
                "response_format",
                param="ignore_eos",
            )
        return schema

    def _seed(self) -> int:
        return secrets.randbelow(MAX_SEED) if self.seed is None else self.seed % (MAX_SEED + 1)

    def _request(
        self,
        server: ServerConfig,
        *,
        prompts: tuple[str | tuple[int, ...], ...] = (),
        messages: tuple[Message, ...] = (),
        max_tokens: int | None,
        logprobs: int | None,
        echo: bool = False,
        tool_use: ToolUse | None = None,
    ) -> GenerationRequest:
        self._check_min_tokens(max_tokens)
        return GenerationRequest(
            prompts=prompts,
            messages=messages,
            n=self.n,
            max_tokens=max_tokens,
            sampling=Sampling(
                temperature=self.temperature,
                top_p=self.top_p,
                top_k=self.top_k,
                seed=self._seed(),
                frequency_penalty=self.frequency_penalty,
                presence_penalty=self.presence_penalty,
                logprobs=logprobs,
                min_p=self.min_p,
                repetition_penalty=self.repetition_penalty,
                logit_bias=tuple(sorted(self.logit_bias.items())),
            ),
            stop=as_tuple(self.stop),
            echo=echo,
            stream=self.stream,
            first_token_timeout_s=server.request_timeout_s,
            timeout_s=server.generation_timeout_s,
            ignores_end=self.ignore_eos,
            answer_schema=self._answer_schema(),
            tool_use=tool_use,
        )


def _as_prompts(given: Inputs) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(given, str):
        return (given,)
    if isinstance(given[0], int):
        return (tuple(given),)
    return tuple(one if isinstance(one, str) else tuple(one) for one in given)


class CompletionsBody(GenerationBody):
    """``POST /v1/completions``.

    Attributes:
        prompt: One text to continue, or several; or the model's own token ids, to which nothing is
            added.
        max_tokens: Most new tokens of each choice; 0 with ``echo`` scores the prompt only, and -1
            sets no limit but the model's.
        logprobs: Report each token's log-probability, beside those of so many most probable ones.
        echo: Put the prompt before its continuation.
    """

    prompt: Inputs
    max_tokens: Annotated[Annotated[int, Field(ge=0)] | None, _none_as(None)] = 16
    logprobs: int | None = Field(default=None, ge=0, le=5)
    echo: bool = False

    add_special_tokens: Annotated[Any, only(True)] = None
    best_of: int | None = None
    suffix: Annotated[Any, only("")] = None

    @field_validator("best_of")
    @classmethod
    def _best_of_all(cls, value: int, info: ValidationInfo) -> int:
        if value != info.data.get("n", value):
            raise ValueError("not supported; leave it out or send the value of n")
        return value

    def to_request(self, server: ServerConfig) -> GenerationRequest:
        """What the backend is asked."""
        return self._request(
            server,
            prompts=_as_prompts(self.prompt),
            max_tokens=self.max_tokens,
            logprobs=self.logprobs,
            echo=self.echo,
        )


Limit = Annotated[Annotated[int, Field(ge=1)] | None, _none_as(None)]


class ChatBody(GenerationBody):
    """``POST /v1/chat/completions``.

    Attributes:
        messages: The chat so far.
        max_tokens: Most tokens of each answer; left out, or -1, an answer ends where the model ends
            it or its context is full.
        max_completion_tokens: OpenAI's newer name for ``max_tokens``.
        logprobs: Report the log-probability of each token.
        top_logprobs: And those of so many most probable ones.
        tools: Functions that an answer may have called.
        tool_choice: Whether it may (``auto``), must (``required``, or the function to be called) or
            must not (``none``: as if there were no tools).
        parallel_tool_calls: Whether it may have several called.
        prediction: What the client expects; only its speed could depend on it.
    """

    messages: list[MessageBody] = Field(min_length=1)
    max_tokens: Limit = None
    max_completion_tokens: Limit = None
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: Tools = Field(default_factory=list)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool = True

    prediction: dict[str, Any] | None = None

    add_generation_prompt: Annotated[Any, only(True)] = None
    add_special_tokens: Annotated[Any, only(False)] = None
    audio: Annotated[Any, only()] = None
    chat_template_kwargs: Annotated[Any, only({})] = None
    continue_final_message: Annotated[Any, only(False)] = None
    documents: Annotated[Any, only([])] = None
    echo: Annotated[Any, only(False)] = None
    function_call: Annotated[Any, only("none")] = None
    functions: Annotated[Any, only([])] = None
    modalities: Annotated[Any, only(["text"])] = None
    moderation: Annotated[Any, only()] = None
    reasoning_effort: Annotated[Any, only("none")] = None
    verbosity: Annotated[Any, only()] = None
    web_search_options: Annotated[Any, only()] = None

    @field_validator("max_completion_tokens")
    @classmethod
    def _one_limit(cls, value: int, info: ValidationInfo) -> int:
        if (other := info.data.get("max_tokens")) not in (None, value):
            raise ValueError(f"differs from max_tokens, which is {other}; send one of the two")
        return value

    @field_validator("top_logprobs")
    @classmethod
    def _only_with_logprobs(cls, value: int, info: ValidationInfo) -> int:
        if info.data.get("logprobs") is False:
            raise ValueError("only with logprobs: true")
        return value

    def to_request(self, server: ServerConfig) -> GenerationRequest:
        """What the backend is asked."""
        limit = self.max_tokens if self.max_tokens is not None else self.max_completion_tokens
        return self._request(
            server,
            messages=to_messages(self.messages),
            max_tokens=limit,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            tool_use=self._tool_use(),
        )

    def _tool_use(self) -> ToolUse | None:
        use = to_tool_use(self.tools, self.tool_choice, self.parallel_tool_calls)
        if use is not None and self.ignore_eos:
            raise InvalidField(
                "ignore_eos: an answer with tools ends where the model ends it; leave out "
                "ignore_eos or tools",
                param="ignore_eos",
            )
        return use
