"""The choices of one request to a generator: what each asks of the engine, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from serving.errors import InvalidField, TooManyTokens
from serving.replica.generator.continuation import Continuation, Prompt
from serving.seams import (
    NUM_TRACED,
    GeneratedToken,
    GenerationChunk,
    GenerationRequest,
    GenerationSummary,
    GenerationTask,
    GenerationTimings,
    Progress,
    TokenLogprob,
    TokenRequest,
    Trace,
)

MAX_STOP_CHARACTERS = 256
"""Preparing the search for a stop string takes the event loop a time that grows with it."""

MAX_TRACED_TOKENS = 128
"""Tokens of one text resemble each other, so more of them would take the reference more time and
say little more. So many are sent as 40 kB."""


@dataclass(slots=True, eq=False)
class RunningChoice:
    """One continuation on its way.

    Attributes:
        index: Its place among the choices of the request.
        request: What the engine is asked.
        text: What its tokens say.
        num_top: Most probable tokens that the client asked for; None for no log-probability.
        is_traced: Whether its tokens are kept for a trace, too.
        progress: Where its time went, up to the latest token.
        first_token_at: When that came, by ``time.perf_counter``; None before it has.
    """

    index: int
    request: TokenRequest
    text: Continuation
    num_top: int | None
    is_traced: bool
    progress: Progress = field(default_factory=lambda: Progress(0, 0, 0, 0))
    first_token_at: float | None = None
    _traced: list[TokenLogprob] = field(default_factory=list, init=False)

    def push(self, generated: GeneratedToken) -> int:
        """Take the next token; returns how many the text has more, none if it is only scored."""
        self.progress = generated.progress
        text = self.text
        before = text.num_tokens
        text.push(self._as_asked(generated) if self.is_traced else generated)
        num_new = text.num_tokens - before
        if self.is_traced and num_new and len(self._traced) < MAX_TRACED_TOKENS:
            assert generated.logprob is not None
            self._traced.append(generated.logprob)
        return num_new

    def chunk(self, tokenize: float, arrived: float) -> GenerationChunk:
        """What is new since the last chunk; for the times see ``summarize``."""
        text, logprobs = self.text.take()
        return GenerationChunk(
            choice=self.index,
            text=text,
            logprobs=logprobs,
            finish=self.text.finish,
            timings=_timings(self.progress, tokenize, arrived),
            prompt_tokens=len(self.request.prompt),
            output_tokens=self.text.num_tokens,
            tool_calls=self.text.take_calls(),
        )

    def trace(self) -> Trace:
        """The first of its tokens."""
        return Trace(self.request.prompt, tuple(self._traced))

    def _as_asked(self, generated: GeneratedToken) -> GeneratedToken:
        """Leave out the log-probabilities that only the trace needs."""
        if generated.logprob is None or self.num_top is None:
            return replace(generated, logprob=None)
        return replace(
            generated,
            logprob=_with_top(generated.logprob, self.num_top),
            prompt=tuple(_with_top(scored, self.num_top) for scored in generated.prompt),
        )


def check_request(request: GenerationRequest, model: str, max_sequences: int) -> None:
    """Raise ``InvalidField`` for what no prompt could make right.

    Args:
        request: What was asked.
        model: Public name, for messages.
        max_sequences: How many the engine takes at once, those that wait included.
    """
    if request.max_tokens == 0 and not request.echo:
        raise InvalidField("max_tokens may be 0 only with echo: true", param="max_tokens")
    if any(len(stop) > MAX_STOP_CHARACTERS for stop in request.stop):
        raise InvalidField(
            f"a stop string may have at most {MAX_STOP_CHARACTERS} characters", param="stop"
        )
    sequences = num_choices(request)
    if sequences > max_sequences:
        raise InvalidField(
            f"{sequences // request.n} prompts with n = {request.n} are {sequences} sequences; "
            f"{model!r} takes at most {max_sequences} at once",
            param="n",
        )


def num_choices(request: GenerationRequest) -> int:
    """How many choices a request has; a chat is one prompt."""
    return (len(request.prompts) or 1) * request.n


def make_choices(
    request: GenerationRequest,
    prompts: Sequence[Prompt],
    task: GenerationTask,
    model: str,
    max_tokens: int,
) -> list[RunningChoice]:
    """All choices of a request, in order.

    Args:
        request: What was asked.
        prompts: Its prompts, tokenized.
        task: Detokenizes.
        model: Public name, for messages.
        max_tokens: Most tokens of a sequence, prompt and continuation together.

    Raises:
        InvalidField: A prompt leaves no room for what is asked.
    """
    choices = []
    for number, prompt in enumerate(prompts):
        num_new = _max_new_tokens(request, number, prompt, model, max_tokens)
        for sample in range(request.n):
            index = number * request.n + sample
            choices.append(_choice(request, index, prompt, num_new, task))
    return choices


def summarize(
    choices: Sequence[RunningChoice], request: GenerationRequest, tokenize: float, arrived: float
) -> GenerationSummary:
    """Sum the tokens up; the timings are those of the choice that took longest.

    Args:
        choices: At their end.
        request: What they belong to.
        tokenize: Seconds that tokenizing took.
        arrived: When the request did, by ``time.perf_counter``.
    """
    longest = max((choice.progress for choice in choices), key=_duration)
    first_of_each = choices[:: request.n]
    return GenerationSummary(
        prompt_tokens=sum(len(choice.request.prompt) for choice in first_of_each),
        cached_tokens=sum(choice.progress.cached_tokens for choice in first_of_each),
        output_tokens=sum(choice.text.num_tokens for choice in choices),
        timings=_timings(longest, tokenize, arrived),
        traces=tuple(choice.trace() for choice in choices if choice.is_traced),
    )


def _choice(
    request: GenerationRequest, index: int, prompt: Prompt, num_new: int, task: GenerationTask
) -> RunningChoice:
    sampling, asked = request.sampling, request.sampling.logprobs
    is_traced = index == request.trace
    return RunningChoice(
        index=index,
        request=TokenRequest(
            prompt=prompt.tokens,
            max_new_tokens=num_new,
            stop_tokens=frozenset() if request.ignores_end else task.stop_tokens,
            sampling=replace(
                sampling,
                seed=sampling.seed + index % request.n,
                logprobs=max(asked or 0, NUM_TRACED) if is_traced else asked,
            ),
            logprobs_from=1 if request.echo and asked is not None else None,
            background=request.background,
        ),
        text=Continuation(
            task,
            prompt,
            request.stop,
            request.echo,
            request.max_tokens == 0,
            None if request.tool_use is None else task.open_calls(request.tool_use),
        ),
        num_top=asked,
        is_traced=is_traced,
    )


def _max_new_tokens(
    request: GenerationRequest, number: int, prompt: Prompt, model: str, limit: int
) -> int:
    used = len(prompt.tokens)
    name = "the chat" if request.messages else f"prompt {number}"
    if used >= limit:
        raise TooManyTokens(
            f"{name} has {used} tokens; {model!r} takes {limit}, prompt and continuation "
            "together, so the prompt is too long. Shorten it",
            param="messages" if request.messages else "prompt",
        )
    if request.max_tokens is None:
        return limit - used
    if used + request.max_tokens > limit:
        raise TooManyTokens(
            f"{name} has {used} tokens and max_tokens asks for {request.max_tokens} more; "
            f"{model!r} takes {limit} together. Ask for at most {limit - used}",
            param="max_tokens",
        )
    # To score a prompt the engine has to take a step, which always gives a token.
    return max(request.max_tokens, 1)


def _timings(progress: Progress, tokenize: float, arrived: float) -> GenerationTimings:
    return GenerationTimings(
        queue=progress.queue,
        tokenize=tokenize,
        prefill=progress.prefill,
        decode=progress.decode,
        total=time.perf_counter() - arrived,
        prefill_core_wait=progress.prefill_core_wait,
        decode_core_wait=progress.decode_core_wait,
    )


def _duration(progress: Progress) -> float:
    waits = progress.queue + progress.prefill_core_wait + progress.decode_core_wait
    return waits + progress.prefill + progress.decode


def _with_top(scored: TokenLogprob, num_top: int) -> TokenLogprob:
    return replace(scored, top=scored.top[:num_top])
