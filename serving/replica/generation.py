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
from serving.metrics import GeneratorMetrics
from serving.replica.backend import INLINE_CHARACTERS
from serving.replica.continuation import Continuation, Prompt
from serving.seams import (
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
    TokenRequest,
)

logger = logging.getLogger("ray.serve.quantserve")

MAX_STOP_CHARACTERS = 256
"""Preparing the search for a stop string takes the event loop a time that grows with it."""


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
        self._metrics = metrics
        self._describe = describe

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
        self._metrics.in_flight.inc()
        try:
            self._check(request)
            prompts = await self._encode(request)
            tokenize = time.perf_counter() - arrived
            self._metrics.observe_tokenize(tokenize)
            choices = self._choices(request, prompts)
            async with _Generation(self._engine, choices, request, arrived, self._metrics) as run:
                while (choice := await run.next_news()) is not None:
                    text, logprobs = choice.text.take()
                    yield GenerationChunk(
                        choice=choice.index,
                        text=text,
                        logprobs=logprobs,
                        finish=choice.text.finish,
                        timings=_timings(choice.progress, tokenize, arrived),
                    )
            yield _summary(prompts, choices, request.n, tokenize, arrived)
        except RequestError:
            raise
        except Exception:
            logger.exception("generating failed")
            raise InternalError("generating failed; see the log of the replica") from None
        finally:
            self._metrics.in_flight.dec()

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
                sampling=replace(sampling, seed=sampling.seed + sample),
                prompt_logprobs=request.echo and sampling.logprobs is not None,
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
                text.push(generated)
                counted.inc(text.num_tokens - before)
                if text.finish is not None:
                    self._note_end(choice)
                    self._announce(choice)
                    return
                if is_streamed and text.has_news:
                    self._announce(choice)
        raise RuntimeError("the engine ended a sequence without a reason")

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
    n: int,
    tokenize: float,
    arrived: float,
) -> GenerationSummary:
    """Sum the tokens up; the timings are those of the choice that took longest."""
    longest = max((choice.progress for choice in choices), key=_duration)
    return GenerationSummary(
        prompt_tokens=sum(len(prompt.tokens) for prompt in prompts),
        cached_tokens=sum(choice.progress.cached_tokens for choice in choices[::n]),
        output_tokens=sum(choice.text.num_tokens for choice in choices),
        timings=_timings(longest, tokenize, arrived),
    )


def _duration(progress: Progress) -> float:
    return progress.queue + progress.prefill + progress.decode
