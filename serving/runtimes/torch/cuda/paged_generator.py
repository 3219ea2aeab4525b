"""A generator on a GPU: transformers' continuous batching, each sequence with its own sampling.

The library schedules, keeps the paged cache and runs the model; ``paged_steps`` chooses the tokens
in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from transformers.generation.continuous_batching.continuous_api import OutputRouter
from transformers.generation.continuous_batching.requests import (
    GenerationOutput,
)

from serving.errors import (
    InputFails,
    InternalError,
    InvalidField,
    NotReady,
    QueueFull,
    RequestError,
)
from serving.generator.token_stream import TokenStream
from serving.runtimes.torch import footprint
from serving.runtimes.torch.cuda.page_cache import allocate, make_manager, num_pages
from serving.runtimes.torch.cuda.paged_steps import Job, Steps
from serving.runtimes.torch.cuda.supported_requests import check_supported
from serving.runtimes.torch.cuda.suspects import Suspects
from serving.runtimes.torch.cuda.token_chooser import TokenChooser
from serving.seams import (
    GREEDY,
    DeviceName,
    FinishReason,
    Footprint,
    GeneratedToken,
    GeneratorLoad,
    OpenGeneratorRequest,
    Progress,
    TokenLogprob,
    TokenRequest,
)

logger = logging.getLogger("ray.serve.quantserve")

CLOSE_TIMEOUT_S = 10.0
"""How long closing waits for the step that runs."""

NUM_PROVEN_TOKENS = 8
"""So many leading tokens of the first prompt that was answered are kept for self-tests."""

_Event = tuple[Job, GeneratedToken | None]
"""A sequence and its next token; None if its logits were NaN or infinite."""


class _Router(OutputRouter):
    """Takes what a step made out of the library's thread, all of it at once.

    Args:
        read: Turns the outputs of a step into events, before the next step begins.
        deliver_events: Passes events on.
        fail: Called for each sequence that the library gives up, with the reason.
    """

    def __init__(
        self,
        read: Callable[[Sequence[GenerationOutput]], list[_Event]],
        deliver_events: Callable[[list[_Event]], None],
        fail: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._read = read
        self._deliver_events = deliver_events
        self._fail = fail

    def deliver_batch(self, outputs: list[GenerationOutput]) -> None:
        """Deliver the outputs of one step."""
        self._deliver_events(self._read(outputs))

    def deliver(self, output: GenerationOutput) -> None:
        """Deliver the end of a sequence whose step failed."""
        self._fail(str(output.error))


class PagedGenerator:
    """Continues many sequences with transformers' continuous batching; see ``GeneratorEngine``.

    Sequences wait here and not in the library, which never has more than ``max_running``; for so
    many its cache has room, and for one more, so that no sequence ever loses its place. Pages of
    earlier prompts are reused while the room is not needed.

    Everything in ``Sampling`` is supported but ``NOT_SUPPORTED`` and more than ``MAX_TOP_LOGPROBS``
    log-probabilities. The library gives scores of a prompt's last token alone, so a prompt is
    scored as if each of its tokens had been generated, a step for each. Attention is flash
    attention where that package is installed and the model is in half precision, else torch's own
    over gathered pages.

    A step that fails ends the library's thread, and with it the engine. Where logits are NaN or
    infinite, tests tell whose fault that is; see ``Suspects``.

    Args:
        model: The transformers model, converted and on the device of ``request``.
        request: What was asked for.

    Raises:
        ConfigError: transformers cannot batch this model continuously, or the cache does not fit.
    """

    can_score = True

    def __init__(self, model: Any, request: OpenGeneratorRequest) -> None:
        self.max_tokens = request.max_tokens
        self._weights_bytes = footprint.weights_bytes(model)
        self._device: DeviceName = request.device
        self._max_running = request.max_running
        self._max_waiting = request.max_waiting
        self._stuck_after_s = request.stuck_after_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ids = map(str, itertools.count())
        self._unfinished: set[Job] = set()
        self._waiting: deque[Job] = deque()
        self._running: dict[str, Job] = {}
        self._free_slots = list(range(request.max_running))
        self._is_closing = False
        self._has_ended = False
        self._on_step: Callable[[int], None] | None = None
        self._proven: tuple[int, ...] = ()
        self._test: Job | None = None
        self._is_broken = False
        self._manager = make_manager(model, request)
        is_captured = any(self._manager.continuous_batching_config.cuda_graph_booleans)
        vocabulary = model.config.get_text_config().vocab_size
        self._chooser = TokenChooser(request.max_running, vocabulary, model.device)
        self._steps = Steps(self._running, self._chooser, is_captured)
        self._manager.logit_processor = cast(Any, self._steps)
        self._manager.output_router = _Router(self._read, self._deliver_soon, self._fail_soon)
        # Flash attention reads each sequence for itself.
        self._suspects = Suspects("flash" not in str(model.config._attn_implementation))
        self._num_pages, self._kv_cache_bytes = allocate(self._manager, request)
        # The library's thread inherits from this one that no exit of the process waits for it.
        starter = threading.Thread(target=self._manager.start, daemon=True)
        starter.start()
        starter.join()

    @property
    def device(self) -> DeviceName:
        """Where the weights are."""
        return self._device

    def generate(self, request: TokenRequest) -> TokenStream:
        """Continue a sequence, from now on; see ``GeneratorEngine.generate``.

        Closing or dropping the stream frees its place before the next step.

        Raises:
            InvalidField: Prompt and continuation can never fit, or ask for log-probabilities that
                this engine does not give.
            QueueFull: As many sequences wait as may.
            NotReady: The engine was closed, or its thread has ended.
        """
        check_supported(request)
        self._check_fits(request)
        self._check_room(request)
        if self._has_ended or not self._manager.is_running():
            raise NotReady("the engine of this variant has ended", retry_after_s=1)
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        job = Job(next(self._ids), request)
        self._unfinished.add(job)
        self._waiting.append(job)
        self._submit_waiting()
        return TokenStream(job.outbox, partial(self._cancel, job))

    def load(self) -> GeneratorLoad:
        """Say how busy the engine is now."""
        unfinished = list(self._unfinished)
        held = [job.num_held for job in unfinished if job.slot is not None]
        return GeneratorLoad(
            running=len(held),
            waiting=len(unfinished) - len(held),
            background=sum(job.request.background for job in unfinished),
            kv_cache_bytes=self._kv_cache_bytes,
            kv_cache_used=sum(map(num_pages, held)) / self._num_pages,
        )

    def observe_steps(self, on_step: Callable[[int], None]) -> None:
        """Report the size of each step; see ``GeneratorEngine.observe_steps``."""
        self._on_step = on_step

    def check_health(self) -> None:
        """Raise ``RuntimeError`` if the engine is stuck, fails its self-test, or has ended."""
        if self._is_closing:
            return
        if self._is_broken:
            raise RuntimeError(
                "the logits of a prompt that was answered before are NaN or infinite"
            )
        if self._has_ended or not self._manager.is_running():
            raise RuntimeError("the generator's thread has ended")
        # A copy: this may run in another thread than the event loop's.
        submitted = [job.submitted for job in list(self._running.values())]
        if submitted:
            since = max(self._steps.last_began, min(submitted))
            if time.perf_counter() - since > self._stuck_after_s:
                raise RuntimeError(f"a step runs for more than {self._stuck_after_s:g} s")

    def footprint(self) -> Footprint:
        """Measure what the engine occupies now; its weights without the cache."""
        return footprint.measure(self._weights_bytes, self._device)

    def close(self) -> None:
        """End the thread after the step that runs; sequences that have not ended get NotReady."""
        if self._is_closing:
            return
        self._is_closing = True
        self._manager.stop(block=True, timeout=CLOSE_TIMEOUT_S, hard_stop=True)
        self._call_soon(self._end, "closed")

    def _check_fits(self, request: TokenRequest) -> None:
        num_prompt, num_new = len(request.prompt), request.max_new_tokens
        assert num_prompt >= 1
        assert num_new >= (request.logprobs_from is None)
        if num_prompt + num_new > self.max_tokens:
            raise InvalidField(
                f"the prompt has {num_prompt} tokens and max_tokens asks for {num_new} more, "
                f"{num_prompt + num_new} together; a sequence may have {self.max_tokens}",
                param="max_tokens",
            )

    def _check_room(self, request: TokenRequest) -> None:
        # A background request takes no place away from those that somebody waits for.
        alike = sum(job.request.background == request.background for job in self._unfinished)
        num_waiting = alike - self._max_running
        if num_waiting >= self._max_waiting:
            raise QueueFull(
                f"{num_waiting} sequences wait already, as many as may; retry later",
                retry_after_s=1,
            )

    def _submit_waiting(self) -> None:
        while self._free_slots and (job := self._next()) is not None:
            job.slot = self._free_slots.pop()
            job.submitted = time.perf_counter()
            self._running[job.id] = job
            added = self._manager.add_request(
                list(job.given),
                request_id=job.id,
                # Where a prompt is only scored, one token comes nevertheless.
                max_new_tokens=len(job.forced) + max(job.request.max_new_tokens, 1),
                streaming=True,
                # A prompt may have stop tokens, and goes on.
                eos_token_id=[] if job.forced else sorted(job.request.stop_tokens),
            )
            if added is None:
                self._end("the library takes no more requests")

    def _next(self) -> Job | None:
        """The sequence that may begin now."""
        if self._test is not None and self._test.slot is None:
            is_held_up = self._suspects.share_steps and self._running
            return None if is_held_up else self._test
        if self._test is not None and self._suspects.share_steps:
            return None
        return self._waiting.popleft() if self._waiting else None

    def _release(self, job: Job) -> None:
        """Take a sequence's place away, if it has one."""
        if self._running.pop(job.id, None) is not None:
            assert job.slot is not None
            self._free_slots.append(job.slot)

    def _cancel(self, job: Job) -> None:
        # May run in any thread, in the middle of anything: a dropped stream is collected wherever
        # the garbage collector happens to run. The library's queues take locks, the loop does not.
        job.is_cancelled = True
        self._unfinished.discard(job)
        self._call_soon(self._drop, job)

    def _drop(self, job: Job) -> None:
        if job.slot is None:
            with contextlib.suppress(ValueError):  # ended meanwhile
                self._waiting.remove(job)
        elif job.id in self._running:
            self._manager.cancel_request(job.id)
            self._release(job)
            self._submit_waiting()

    def _deliver(self, events: Sequence[_Event], sizes: Sequence[int]) -> None:
        for size in sizes:
            if size and self._on_step is not None:
                self._on_step(size)
        for job, event in events:
            if job.is_cancelled:
                continue
            if event is None:
                self._manager.cancel_request(job.id)
                if job is not self._test:
                    self._suspects.jobs.append(job)
            else:
                self._is_broken = False
                self._proven = self._proven or job.request.prompt[:NUM_PROVEN_TOKENS]
                job.outbox.put_nowait(event)
                if event.finish is None:
                    continue
                if event.finish == "stop" and job.forced:  # the library knows of none
                    self._manager.cancel_request(job.id)
            self._unfinished.discard(job)
            self._release(job)
            if job is self._test:
                self._test = None
                self._tell_suspects(is_answered=event is not None)
        self._test_if_suspected()
        self._submit_waiting()

    def _test_if_suspected(self) -> None:
        if self._test is not None:
            return
        prompt = self._suspects.next_test(self._proven)
        if prompt == ():  # nothing was ever answered
            self._tell_suspects(is_answered=False)
        elif prompt is not None:
            self._test = Job(next(self._ids), TokenRequest(prompt, 1, frozenset(), GREEDY))
            self._unfinished.add(self._test)

    def _tell_suspects(self, is_answered: bool) -> None:
        for job, conclusion in self._suspects.conclude(is_answered):
            self._is_broken = conclusion == "broken"
            if conclusion == "restart":
                self._restart(job)
            elif conclusion == "broken":
                job.outbox.put_nowait(
                    InternalError("the model fails on every prompt; see the log of the replica")
                )
            else:
                job.outbox.put_nowait(
                    InputFails(
                        "the model gives logits that are NaN or infinite on this sequence, and not "
                        "on others; another variant may continue it"
                    )
                )

    def _restart(self, job: Job) -> None:
        if not job.is_cancelled:
            job.restart(next(self._ids))
            self._unfinished.add(job)
            self._waiting.appendleft(job)

    def _end(self, reason: str) -> None:
        """End every sequence, since no step will come any more."""
        if not self._is_closing and not self._has_ended:
            logger.error("the generator's thread ended: %s", reason)
        self._has_ended = True
        for job in [*self._running.values(), *self._waiting, *self._suspects.jobs]:
            job.outbox.put_nowait(self._ending())
        for collection in (self._unfinished, self._running, self._waiting, self._suspects.jobs):
            collection.clear()

    def _ending(self) -> RequestError:
        if self._is_closing:
            return NotReady("the engine of this variant was closed", retry_after_s=1)
        return InternalError("a step of the model failed; see the log of the replica")

    def _call_soon(self, callback: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop may be closed
            if self._loop is not None:
                self._loop.call_soon_threadsafe(callback, *arguments)

    # What follows runs in the library's thread.

    def _read(self, outputs: Sequence[GenerationOutput]) -> list[_Event]:
        now = time.perf_counter()
        report = self._chooser.report()
        events: list[_Event] = []
        for output in outputs:
            job = self._running.get(output.request_id)
            if job is None or job.has_finished:
                continue
            noted = report[job.slot]
            if not math.isfinite(noted[0]):
                logger.error("after %d tokens: the logits are NaN or infinite", job.num_held)
                job.has_finished = True  # until it is known why: more steps may come before that
                events.append((job, None))
            elif len(output.generated_tokens) <= len(job.forced):
                job.scores.append(_logprob(output.generated_tokens[-1], job, noted))
            elif len(output.generated_tokens) > len(job.forced) + len(job.generated):
                job.generated.append(output.generated_tokens[-1])
                event = _event(job, output.generated_tokens, noted, now)
                job.has_finished = event.finish is not None
                events.append((job, event))
        return events

    def _deliver_soon(self, events: list[_Event]) -> None:
        if events:  # the sizes of steps without any go along with the next ones
            self._call_soon(self._deliver, events, self._steps.take_sizes())

    def _fail_soon(self, reason: str) -> None:
        self._call_soon(self._end, reason)


def _event(
    job: Job, tokens: Sequence[int], noted: NDArray[np.float64], now: float
) -> GeneratedToken:
    """The last of ``tokens``, which were generated after ``job.given``."""
    token, request = tokens[-1], job.request
    num_new = len(tokens) - len(job.forced)
    finish: FinishReason | None = None
    if token in request.stop_tokens:
        finish = "stop"
    elif num_new >= request.max_new_tokens:
        finish = "length"
    return GeneratedToken(
        token,
        finish,
        _progress(job, now),
        _logprob(token, job, noted) if request.sampling.logprobs is not None else None,
        tuple(job.scores) if num_new == 1 else (),
    )


def _logprob(token: int, job: Job, noted: NDArray[np.float64]) -> TokenLogprob:
    logprobs, ids = np.split(noted[1:], 2)
    count = job.request.sampling.logprobs or 0
    top = zip(ids[:count].astype(int).tolist(), logprobs[:count].tolist(), strict=True)
    return TokenLogprob(token, float(noted[0]), tuple(top))


def _progress(job: Job, now: float) -> Progress:
    if job.first_token is None:
        job.first_token = now
    assert job.started is not None
    return Progress(
        queue=job.started - job.arrived,
        prefill=job.first_token - job.started,
        decode=now - job.first_token,
        cached_tokens=job.num_reused,
    )
