"""The choices of one request while an engine continues them: deadlines, measures, news."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import aclosing

from serving.errors import DeadlineExceeded
from serving.metrics import GeneratorMetrics
from serving.replica.generator.background_metrics import BackgroundMetrics
from serving.replica.generator.choices import RunningChoice
from serving.seams import GenerationRequest, GeneratorEngine


class RunningChoices:
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
        choices: Sequence[RunningChoice],
        request: GenerationRequest,
        arrived: float,
        metrics: GeneratorMetrics | BackgroundMetrics,
    ) -> None:
        self._engine = engine
        self._choices = choices
        self._request = request
        self._arrived = arrived
        self._metrics = metrics
        self._announced: OrderedDict[RunningChoice, None] = OrderedDict()
        self._news = asyncio.Event()
        self._failure: BaseException | None = None
        self._missing_first_tokens = len(choices)
        self._unfinished = len(choices)
        self._undelivered = len(choices)

    async def __aenter__(self) -> RunningChoices:
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

    async def next_news(self) -> RunningChoice | None:
        """Wait for a choice with something to send; None after the end of the last one."""
        while not self._announced and self._failure is None and self._undelivered:
            self._news.clear()
            await self._news.wait()
        if self._failure is not None:
            raise self._failure
        if not self._undelivered:
            return None
        choice, _ = self._announced.popitem(last=False)
        if choice.text.finish is not None:
            self._undelivered -= 1
        return choice

    async def _generate(self, choice: RunningChoice) -> None:
        text, is_streamed, count = choice.text, self._request.stream, self._metrics.output_tokens
        async with aclosing(self._engine.generate(choice.request)) as tokens:
            async for generated in tokens:
                count.inc(choice.push(generated))
                if choice.first_token_at is None:
                    self._note_first_token(choice)
                if text.finish is not None:
                    self._note_end(choice)
                    self._announce(choice)
                    return
                if is_streamed and text.has_news:
                    self._announce(choice)
        raise RuntimeError("the engine ended a sequence without a reason")

    def _announce(self, choice: RunningChoice) -> None:
        if choice not in self._announced:
            self._announced[choice] = None
            self._news.set()

    def _note_first_token(self, choice: RunningChoice) -> None:
        choice.first_token_at = time.perf_counter()
        self._metrics.observe_first_token(choice.first_token_at - self._arrived)
        if choice.index % self._request.n == 0:
            self._metrics.observe_prompt(len(choice.request.prompt), choice.progress.cached_tokens)
        self._missing_first_tokens -= 1
        if not self._missing_first_tokens:
            self._first_token_timer.cancel()

    def _note_end(self, choice: RunningChoice) -> None:
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
