"""What is asked of a generator, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from serving.seams.generator import GREEDY, FinishReason, Sampling, TokenLogprob
from serving.seams.tools import Tool, ToolCall, ToolCallDelta, ToolUse

EndReason = FinishReason | Literal["tool_calls"]
"""Why an answer ends: as its sequence does, or since it asks for tools to be called."""

NUM_TRACED = 20
"""Most probable tokens of each place that a trace and a score report."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat.

    Attributes:
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        content: What was said, or what a tool gave.
        tool_calls: That an assistant asked for.
        tool_call_id: Of the call whose result this is; None of other turns.
        tool_name: Of the tool whose result this is, if it is known.
    """

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    tool_name: str | None = None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What a route asks of a backend that generates.

    Attributes:
        prompts: What to continue, as texts or as token ids; empty for a chat.
        messages: The chat to answer; empty unless it is one.
        n: Continuations of each prompt; choice ``i * n + j`` is the j-th of prompt i, and is
            sampled with ``sampling.seed + j``.
        max_tokens: Most new tokens of each; None generates until the model stops or its context
            is full.
        sampling: How tokens are chosen.
        stop: Texts that end a continuation; they are left out of it.
        echo: Put the prompt before its continuation.
        stream: Send each piece as it comes; otherwise each choice comes as a single chunk.
        first_token_timeout_s: Seconds that may pass until the first token of every choice.
        timeout_s: Seconds that may pass until the end.
        trace: Index of a choice to report token by token in ``GenerationSummary.traces``, too.
        background: See ``InferenceRequest``.
        ignores_end: Go on where the model would end, up to ``max_tokens``, as load generators ask.
        answer_schema: A checked JSON schema that each continuation follows; None leaves it free.
        tool_use: Tools that an answer to a chat may or must call; None has none.
    """

    prompts: tuple[str | tuple[int, ...], ...]
    messages: tuple[Message, ...]
    n: int
    max_tokens: int | None
    sampling: Sampling
    stop: tuple[str, ...]
    echo: bool
    stream: bool
    first_token_timeout_s: float
    timeout_s: float
    trace: int | None = None
    background: bool = False
    ignores_end: bool = False
    answer_schema: Mapping[str, Any] | None = None
    tool_use: ToolUse | None = None


def background_request(prompt: str, max_tokens: int, timeout_s: float) -> GenerationRequest:
    """Ask for what the model most probably says, when nobody else asks for anything."""
    return GenerationRequest(
        prompts=(prompt,),
        messages=(),
        n=1,
        max_tokens=max_tokens,
        sampling=GREEDY,
        stop=(),
        echo=False,
        stream=False,
        first_token_timeout_s=timeout_s,
        timeout_s=timeout_s,
        background=True,
    )


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Asks a generator how probable given tokens are, in one forward pass.

    Attributes:
        prompt: What they follow, as token ids or as a text; may be empty.
        continuation: What is scored; of the same kind as ``prompt``. Without a prompt the first
            token has nothing to follow and gets no score.
        timeout_s: Seconds that may pass until the answer.
        background: See ``InferenceRequest``.
    """

    prompt: tuple[int, ...] | str
    continuation: tuple[int, ...] | str
    timeout_s: float
    background: bool = False


@dataclass(frozen=True, slots=True)
class TokensRequest:
    """Asks a generator which tokens it makes of a text or a chat, or what tokens say.

    Attributes:
        text: Of any length; likewise the others, of which exactly one is given.
        messages: A chat, up to where the answer would begin.
        tokens: Token ids.
        timeout_s: Seconds that may pass until the answer.
        tools: What the model is told of with the chat.
    """

    text: str
    messages: tuple[Message, ...]
    tokens: tuple[int, ...]
    timeout_s: float
    tools: tuple[Tool, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """Tokens, and what they say.

    Attributes:
        tokens: Token ids.
        names: What each says alone; special ones by their name.
        text: As it came, or what the tokens say; empty for a chat.
        max_tokens: Most tokens that the generator takes, prompt and continuation together.
    """

    tokens: tuple[int, ...]
    names: tuple[str, ...]
    text: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Trace:
    """What a generator wrote after a prompt, token by token.

    Attributes:
        prompt: Token ids.
        tokens: The first of those that were generated, each with the ``NUM_TRACED`` most probable
            ones in its place.
    """

    prompt: tuple[int, ...]
    tokens: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True)
class TextLogprob:
    """A token as text, with its log-probability and its most probable rivals.

    Attributes:
        text: What it adds; for a part of a character, the replacement character.
        raw: Its bytes.
        logprob: Natural log of its probability; None for the first token of a prompt.
        top: Triples of text, bytes and log-probability, the most probable first.
    """

    text: str
    raw: bytes
    logprob: float | None
    top: tuple[tuple[str, bytes, float], ...]


@dataclass(frozen=True, slots=True)
class GenerationTimings:
    """Where the time of one request went, in seconds; of several choices, the longest.

    Attributes:
        queue: From tokenized until the first step that works on it may begin.
        tokenize: To render the chat template and tokenize.
        prefill: From the first step to the first token; likewise ``decode`` and the waits for
            cores see ``Progress``.
        decode: See ``prefill``.
        total: From its arrival at the replica.
        prefill_core_wait: See ``prefill``.
        decode_core_wait: See ``prefill``.
    """

    queue: float
    tokenize: float
    prefill: float
    decode: float
    total: float
    prefill_core_wait: float = 0
    decode_core_wait: float = 0

    @property
    def core_wait(self) -> float:
        """Seconds that its steps waited for cores, all together."""
        return self.prefill_core_wait + self.decode_core_wait

    @property
    def first_token(self) -> float:
        """Seconds from its arrival to its first token."""
        return self.queue + self.tokenize + self.prefill_core_wait + self.prefill


@dataclass(frozen=True, slots=True)
class GenerationChunk:
    """A piece of one choice.

    Attributes:
        choice: Its index.
        text: What is new; may be empty.
        logprobs: The new tokens one by one, if the request asked for log-probabilities.
        finish: Why the choice ends here; None if it goes on.
        timings: Up to now.
        prompt_tokens: Of the prompt that the choice continues.
        output_tokens: Of the choice, up to now.
        tool_calls: What is new of the calls that the choice makes.
    """

    choice: int
    text: str
    logprobs: tuple[TextLogprob, ...]
    finish: EndReason | None
    timings: GenerationTimings
    prompt_tokens: int = 0
    output_tokens: int = 0
    tool_calls: tuple[ToolCallDelta, ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationSummary:
    """What comes after the last chunk.

    Attributes:
        prompt_tokens: Of all prompts, each counted once.
        cached_tokens: Prompt tokens that were in the cache already.
        output_tokens: Of all choices, the ones that ended them included.
        timings: Of the whole request.
        traces: That of the traced choice, if the request asked for one; else none.
    """

    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    timings: GenerationTimings
    traces: tuple[Trace, ...] = ()
