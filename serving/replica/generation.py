"""The local backend of a generator: prompts in, text out, all choices of a request at once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from serving.errors import DeadlineExceeded, InternalError, InvalidField, RequestError
from serving.metrics import GeneratorMetrics, Labels, ReplicaMetrics
from serving.replica.admission import Admission
from serving.replica.backend import INLINE_CHARACTERS
from serving.replica.continuation import Continuation, Prompt
from serving.seams import (
    GREEDY,
    NUM_TRACED,
    Description,
    GeneratedToken,
    GenerationChunk,
    GenerationRequest,
    GenerationSummary,
    GenerationTask,
    GenerationTimings,
    GeneratorEngine,
    InferenceRequest,
    Outcome,
    Progress,
    ScoreRequest,
    TokenLogprob,
    TokenRequest,
    Trace,
)

logger = logging.getLogger("ray.serve.quantserve")

MAX_STOP_CHARACTERS = 256
"""Preparing the search for a stop string takes the event loop a time that grows with it."""

MAX_TRACED_TOKENS = 128
"""Of each choice: tokens of one text resemble each other, so more of them would take the reference
more time and say little more. So many are sent as 40 kB."""

SCORED = replace(GREEDY, logprobs=NUM_TRACED)


class LocalGenerator:
    """Answers requests with a generator in this process.

    Args:
        model: Its public name, for messages.
        task: Tokenizes and detokenizes.
        engine: Continues sequences.
        max_sequences: How many the engine takes at once, those that wait included.
        metrics: Measures.
        describe: Says what is loaded.
    """

    def __init__(
        self,
        model: str,
        task: GenerationTask,
        engine: GeneratorEngine,
        max_sequences: int,
        metrics: GeneratorMetrics,
        describe: Callable[[], Description],
    ) -> None:
        self._model = model
        self._task = task
        self._engine = engine
        self._max_sequences = max_sequences
        self._counted = metrics
        # Nobody exports these: what background requests do shows in no series.
        self._uncounted = GeneratorMetrics(ReplicaMetrics(Labels(model, "", ""), ""), engine.load)
        self._describe = describe
        self._admission = Admission()
        metrics.in_flight.set_function(lambda: self._admission.in_flight)

    async def infer(self, request: InferenceRequest) -> Outcome:
        """Refuse: a generator has no rows to answer with."""
        raise InvalidField(
            f"model {self._model!r} generates; use /v1/completions or /v1/chat/completions",
            param="model",
        )

    async def describe(self) -> Description:
        """Say what is loaded."""
        return self._describe()

    async def stream(
        self, request: GenerationRequest
    ) -> AsyncGenerator[GenerationChunk | GenerationSummary, None]:
        """Generate; see ``Backend.stream``.

        Pieces of a choice that come while the consumer is busy are sent as one, so no more is
        kept than ``max_tokens`` of each choice.
        """
        arrived = time.perf_counter()
        metrics = self._uncounted if request.background else self._counted
        try:
            with self._admission.admit(request.background):
                self._check(request)
                prompts = await self._encode(request)
                tokenize = time.perf_counter() - arrived
                metrics.observe_tokenize(tokenize)
                choices = self._choices(request, prompts)
                async with _Generation(self._engine, choices, request, arrived, metrics) as run:
                    while (choice := await run.next_news()) is not None:
                        text, logprobs = choice.text.take()
                        yield GenerationChunk(
                            choice=choice.index,
                            text=text,
                            logprobs=logprobs,
                            finish=choice.text.finish,
                            timings=_timings(choice.progress, tokenize, arrived),
                        )
                yield _summary(prompts, choices, request, tokenize, arrived)
        except RequestError:
            raise
        except Exception:
            logger.exception("generating failed")
            raise InternalError("generating failed; see the log of the replica") from None

    async def score(self, request: ScoreRequest) -> tuple[TokenLogprob, ...]:
        """Score each token of the continuation that follows something; see ``Backend.score``."""
        arrived = time.perf_counter()
        metrics = self._uncounted if request.background else self._counted
        try:
            with self._admission.admit(request.background):
                async with asyncio.timeout(request.timeout_s):
                    prompt, continuation = await self._encode_scored(request)
                    self._check_scored(prompt, continuation)
                    metrics.observe_tokenize(time.perf_counter() - arrived)
                    return await self._score(prompt, continuation, metrics)
        except TimeoutError:
            raise DeadlineExceeded(f"no answer within {request.timeout_s:g} s") from None
        except RequestError:
            raise
        except Exception:
            logger.exception("scoring failed")
            raise InternalError("scoring failed; see the log of the replica") from None

    def _check(self, request: GenerationRequest) -> None:
        if request.max_tokens == 0 and not request.echo:
            raise InvalidField("max_tokens may be 0 only with echo: true", param="max_tokens")
        if any(len(stop) > MAX_STOP_CHARACTERS for stop in request.stop):
            raise InvalidField(
                f"a stop string may have at most {MAX_STOP_CHARACTERS} characters", param="stop"
            )
        prompts = len(request.prompts) or 1
        if prompts * request.n > self._max_sequences:
            raise InvalidField(
                f"{prompts} prompts with n = {request.n} are {prompts * request.n} sequences; "
                f"{self._model!r} takes at most {self._max_sequences} at once",
                param="n",
            )

    async def _encode(self, request: GenerationRequest) -> list[Prompt]:
        characters = sum(map(len, request.prompts))
        characters += sum(len(message.content) for message in request.messages)
        if characters <= INLINE_CHARACTERS:
            return self._encode_now(request)
        return await asyncio.to_thread(self._encode_now, request)

    def _encode_now(self, request: GenerationRequest) -> list[Prompt]:
        if request.messages:
            return [Prompt(self._task.encode_chat(request.messages), "")]
        return [Prompt(self._task.encode_prompt(text), text) for text in request.prompts]

    async def _encode_scored(
        self, request: ScoreRequest
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        prompt, continuation = request.prompt, request.continuation
        if not isinstance(prompt, str) and not isinstance(continuation, str):
            return prompt, continuation
        if not isinstance(prompt, str) or not isinstance(continuation, str):
            raise InvalidField(
                "give prompt and continuation both as texts, or both as token ids",
                param="continuation",
            )
        if len(prompt) + len(continuation) <= INLINE_CHARACTERS:
            return self._task.encode_continuation(prompt, continuation)
        return await asyncio.to_thread(self._task.encode_continuation, prompt, continuation)

    def _check_scored(self, prompt: Sequence[int], continuation: Sequence[int]) -> None:
        if not continuation:
            raise InvalidField("continuation has no token to score", param="continuation")
        num_tokens = len(prompt) + len(continuation)
        if num_tokens > self._engine.max_tokens:
            raise InvalidField(
                f"prompt and continuation have {num_tokens} tokens; {self._model!r} takes "
                f"{self._engine.max_tokens}. Shorten them",
                param="continuation",
            )

    async def _score(
        self, prompt: tuple[int, ...], continuation: tuple[int, ...], metrics: GeneratorMetrics
    ) -> tuple[TokenLogprob, ...]:
        first = max(len(prompt), 1)
        tokens = prompt + continuation
        if first == len(tokens):  # a single token follows nothing
            return ()
        asked = TokenRequest(tokens, 0, frozenset(), SCORED, logprobs_from=first)
        async with aclosing(self._engine.generate(asked)) as stream:
            async for generated in stream:
                metrics.observe_prompt(len(tokens), generated.progress.cached_tokens)
                return generated.prompt
        raise RuntimeError("the engine ended a sequence without a reason")

    def _choices(self, request: GenerationRequest, prompts: Sequence[Prompt]) -> list[_Choice]:
        return [
            self._choice(request, number, prompt, sample)
            for number, prompt in enumerate(prompts)
            for sample in range(request.n)
        ]

    def _choice(
        self, request: GenerationRequest, number: int, prompt: Prompt, sample: int
    ) -> _Choice:
        sampling = request.sampling
        return _Choice(
            index=number * request.n + sample,
            request=TokenRequest(
                prompt=prompt.tokens,
                max_new_tokens=self._max_new_tokens(request, number, prompt),
                stop_tokens=self._task.stop_tokens,
                sampling=replace(sampling, seed=sampling.seed + sample, logprobs=_num_top(request)),
                logprobs_from=1 if request.echo and sampling.logprobs is not None else None,
            ),
            text=Continuation(
                self._task, prompt, request.stop, request.echo, request.max_tokens == 0
            ),
        )

    def _max_new_tokens(self, request: GenerationRequest, number: int, prompt: Prompt) -> int:
        limit, used = self._engine.max_tokens, len(prompt.tokens)
        name = "the chat" if request.messages else f"prompt {number}"
        if used >= limit:
            raise InvalidField(
                f"{name} has {used} tokens; {self._model!r} takes {limit}, prompt and "
                "continuation together. Shorten it",
                param="messages" if request.messages else "prompt",
            )
        if request.max_tokens is None:
            return limit - used
        if used + request.max_tokens > limit:
            raise InvalidField(
                f"{name} has {used} tokens and max_tokens asks for {request.max_tokens} more; "
                f"{self._model!r} takes {limit} together. Ask for at most {limit - used}",
                param="max_tokens",
            )
        # To score a prompt the engine has to take a step, which always gives a token.
        return max(request.max_tokens, 1)


@dataclass(slots=True, eq=False)
class _Choice:
    index: int
    request: TokenRequest
    text: Continuation
    progress: Progress = field(default_factory=lambda: Progress(0, 0, 0, 0))
    first_token_at: float | None = None
    is_announced: bool = False
    traced: list[TokenLogprob] = field(default_factory=list)


class _Generation:
    """The choices of one request while they are generated.

    A task per choice feeds its text; one consumer asks for news. Whatever ends it early, a
    failed choice or a deadline or the consumer, closes every sequence at once.

    Args:
        engine: Continues the sequences.
        choices: At least one.
        request: Gives the deadlines, and whether pieces are news before their choice ends.
        arrived: When the request did, by ``time.perf_counter``.
        metrics: Measures.
    """

    def __init__(
        self,
        engine: GeneratorEngine,
        choices: Sequence[_Choice],
        request: GenerationRequest,
        arrived: float,
        metrics: GeneratorMetrics,
    ) -> None:
        self._engine = engine
        self._choices = choices
        self._request = request
        self._arrived = arrived
        self._metrics = metrics
        self._announced: deque[_Choice] = deque()
        self._news = asyncio.Event()
        self._failure: BaseException | None = None
        self._missing_first_tokens = len(choices)
        self._unfinished = len(choices)
        self._undelivered = len(choices)

    async def __aenter__(self) -> _Generation:
        request, loop = self._request, asyncio.get_running_loop()
        spent = time.perf_counter() - self._arrived
        self._first_token_timer = loop.call_later(
            request.first_token_timeout_s - spent,
            self._fail,
            DeadlineExceeded(f"no first token within {request.first_token_timeout_s:g} s"),
        )
        self._timer = loop.call_later(
            request.timeout_s - spent,
            self._fail,
            DeadlineExceeded(f"not finished within {request.timeout_s:g} s"),
        )
        self._tasks = [loop.create_task(self._generate(choice)) for choice in self._choices]
        for task in self._tasks:
            task.add_done_callback(self._fail_with_task)
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._first_token_timer.cancel()
        self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def next_news(self) -> _Choice | None:
        """Wait for a choice with something to send; None after the end of the last one."""
        while not self._announced and self._failure is None and self._undelivered:
            self._news.clear()
            await self._news.wait()
        if self._failure is not None:
            raise self._failure
        if not self._undelivered:
            return None
        choice = self._announced.popleft()
        choice.is_announced = False
        if choice.text.finish is not None:
            self._undelivered -= 1
        return choice

    async def _generate(self, choice: _Choice) -> None:
        text, is_streamed = choice.text, self._request.stream
        counted = self._metrics.output_tokens
        async with aclosing(self._engine.generate(choice.request)) as tokens:
            async for generated in tokens:
                if choice.first_token_at is None:
                    self._note_first_token(choice, generated)
                choice.progress = generated.progress
                before = text.num_tokens
                text.push(self._as_asked(generated))
                num_new = text.num_tokens - before
                counted.inc(num_new)
                if num_new and self._request.trace and len(choice.traced) < MAX_TRACED_TOKENS:
                    assert generated.logprob is not None
                    choice.traced.append(generated.logprob)
                if text.finish is not None:
                    self._note_end(choice)
                    self._announce(choice)
                    return
                if is_streamed and text.has_news:
                    self._announce(choice)
        raise RuntimeError("the engine ended a sequence without a reason")

    def _as_asked(self, generated: GeneratedToken) -> GeneratedToken:
        """Leave out the log-probabilities that only the trace needs."""
        if not self._request.trace or generated.logprob is None:
            return generated
        num_top = self._request.sampling.logprobs
        if num_top is None:
            return replace(generated, logprob=None)
        return replace(
            generated,
            logprob=_with_top(generated.logprob, num_top),
            prompt=tuple(_with_top(scored, num_top) for scored in generated.prompt),
        )

    def _announce(self, choice: _Choice) -> None:
        if not choice.is_announced:
            choice.is_announced = True
            self._announced.append(choice)
            self._news.set()

    def _note_first_token(self, choice: _Choice, generated: GeneratedToken) -> None:
        choice.first_token_at = time.perf_counter()
        self._metrics.observe_first_token(choice.first_token_at - self._arrived)
        if choice.index % self._request.n == 0:
            self._metrics.observe_prompt(
                len(choice.request.prompt), generated.progress.cached_tokens
            )
        self._missing_first_tokens -= 1
        if not self._missing_first_tokens:
            self._first_token_timer.cancel()

    def _note_end(self, choice: _Choice) -> None:
        assert choice.first_token_at is not None
        duration = time.perf_counter() - choice.first_token_at
        self._metrics.observe_end(choice.progress, choice.text.num_tokens, duration)
        self._unfinished -= 1
        if not self._unfinished:
            # What is left is the consumer's time, not the engine's.
            self._timer.cancel()

    def _fail_with_task(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
            # At once, even if the consumer is away.
            for task in self._tasks:
                task.cancel()
            self._news.set()


def _timings(progress: Progress, tokenize: float, arrived: float) -> GenerationTimings:
    return GenerationTimings(
        queue=progress.queue,
        tokenize=tokenize,
        prefill=progress.prefill,
        decode=progress.decode,
        total=time.perf_counter() - arrived,
    )


def _summary(
    prompts: Sequence[Prompt],
    choices: Sequence[_Choice],
    request: GenerationRequest,
    tokenize: float,
    arrived: float,
) -> GenerationSummary:
    """Sum the tokens up; the timings are those of the choice that took longest."""
    longest = max((choice.progress for choice in choices), key=_duration)
    return GenerationSummary(
        prompt_tokens=sum(len(prompt.tokens) for prompt in prompts),
        cached_tokens=sum(choice.progress.cached_tokens for choice in choices[:: request.n]),
        output_tokens=sum(choice.text.num_tokens for choice in choices),
        timings=_timings(longest, tokenize, arrived),
        traces=tuple(Trace(choice.request.prompt, tuple(choice.traced)) for choice in choices)
        if request.trace
        else (),
    )


def _num_top(request: GenerationRequest) -> int | None:
    """Most probable tokens that the engine has to report, for the client and for the trace."""
    asked = request.sampling.logprobs
    return max(asked or 0, NUM_TRACED) if request.trace else asked


def _with_top(scored: TokenLogprob, num_top: int) -> TokenLogprob:
    return replace(scored, top=scored.top[:num_top])


def _duration(progress: Progress) -> float:
    return progress.queue + progress.prefill + progress.decode
