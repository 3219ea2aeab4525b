"""A generator out of any decoder: a thread takes the steps, consumers live in an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from queue import SimpleQueue

from serving.errors import InternalError, InvalidField, NotReady, QueueFull, RequestError
from serving.generator.drafting import NOTHING_DRAFTED, Drafter
from serving.generator.scheduling import PromptBudget
from serving.generator.sequence_job import SequenceJob
from serving.generator.stepper import Stepper
from serving.generator.token_stream import TokenStream
from serving.seams import (
    Cores,
    Decoder,
    DeviceName,
    DraftCounts,
    Footprint,
    GeneratedToken,
    GeneratorLoad,
    TokenRequest,
)

logger = logging.getLogger("ray.serve.quantserve")

CLOSE_TIMEOUT_S = 10.0
"""How long closing waits for the step that runs."""


class SlotGenerator:
    """Continues many sequences with one decoder; see ``GeneratorEngine``.

    A thread of its own loads the decoder and takes every step. The event loop of the first
    ``generate`` gets the tokens of a step all at once, while the next step runs.

    Args:
        make_decoder: Loads the decoder and warms it, in the engine's thread: see
            ``serving.replica.encoder.loading.open_encoder`` for why. What it raises, the
            constructor raises.
        cores: Where each step gets cores from; left when the engine is closed.
        max_waiting: Sequences that may wait while every slot is taken.
        chunk_tokens: Most prompt tokens of a step while other sequences decode.
        idle_chunk_tokens: Most prompt tokens of a step while none does.
        stuck_after_s: Seconds after which a step counts as stuck.
        make_drafter: Opens what proposes tokens, in the same thread after the decoder; None has
            none proposed.
    """

    can_score = True

    def __init__(
        self,
        make_decoder: Callable[[], Decoder],
        cores: Cores,
        max_waiting: int,
        chunk_tokens: int = 32,
        idle_chunk_tokens: int = 256,
        stuck_after_s: float = float("inf"),
        make_drafter: Callable[[], Drafter] | None = None,
    ) -> None:
        self._max_waiting = max_waiting
        self._stuck_after_s = stuck_after_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unfinished: set[SequenceJob] = set()
        self._commands: SimpleQueue[SequenceJob | None] = SimpleQueue()
        self._is_closing = False
        self._has_ended = False
        self._cores = cores
        self._on_step: Callable[[int], None] | None = None
        self._on_drafts: Callable[[DraftCounts], None] | None = None
        made: Future[Stepper] = Future()

        def make_stepper() -> Stepper:
            budget = PromptBudget(busy=chunk_tokens, idle=idle_chunk_tokens)
            decoder = make_decoder()
            return Stepper(decoder, cores, budget, None if make_drafter is None else make_drafter())

        self._worker = threading.Thread(
            target=self._work, args=(make_stepper, made), name="generate", daemon=True
        )
        self._worker.start()
        self._stepper = made.result()
        self._decoder = self._stepper.decoder
        drafter = self._stepper.drafter
        self._draft = None if drafter is None else drafter.decoder
        self.max_tokens = self._decoder.slot_tokens

    @property
    def device(self) -> DeviceName:
        """Where the weights are."""
        return self._decoder.device

    def generate(self, request: TokenRequest) -> TokenStream:
        """Continue a sequence, from now on; see ``GeneratorEngine.generate``.

        Closing or dropping the stream frees the slot before the next step.

        Raises:
            InvalidField: Prompt and continuation can never fit.
            QueueFull: As many sequences wait as may.
            NotReady: The engine was closed, or its thread has ended.
        """
        self._check_fits(request)
        self._check_room(request)
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        job = SequenceJob(request, is_drafted=self._draft is not None)
        self._unfinished.add(job)
        self._commands.put(job)
        if not request.background:
            self._cores.hurry()
        if self._has_ended:  # only now: a worker that ends later takes the job along
            self._unfinished.discard(job)
            raise NotReady("the engine of this variant has ended", retry_after_s=1)
        return TokenStream(job.outbox, partial(self._cancel, job))

    def load(self) -> GeneratorLoad:
        """Say how busy the engine is now."""
        unfinished = list(self._unfinished)
        held = [job.sequence.num_cached for job in unfinished if job.sequence.slot is not None]
        return GeneratorLoad(
            running=len(held),
            waiting=len(unfinished) - len(held),
            background=sum(job.request.background for job in unfinished),
            kv_cache_bytes=self._decoder.kv_cache_bytes + self._draft_kv_cache_bytes(),
            kv_cache_used=sum(held) / (self._decoder.num_slots * self._decoder.slot_tokens),
        )

    def observe_steps(self, on_step: Callable[[int], None]) -> None:
        """Report the size of each step; see ``GeneratorEngine.observe_steps``."""
        self._on_step = on_step

    @property
    def drafted(self) -> DraftCounts:
        """What became of all tokens that were proposed."""
        drafter = self._stepper.drafter
        return NOTHING_DRAFTED if drafter is None else drafter.counts

    def observe_drafts(self, on_drafts: Callable[[DraftCounts], None]) -> None:
        """Have ``on_drafts`` called in the event loop for each step that checked a draft."""
        self._on_drafts = on_drafts

    def check_health(self) -> None:
        """Raise ``RuntimeError`` if the engine is stuck, fails its self-test, or has ended."""
        if self._has_ended and not self._is_closing:
            raise RuntimeError("the generator's thread has ended")
        if (broken := self._stepper.broken) is not None:
            raise RuntimeError(f"the decoder fails on a prompt that it had answered: {broken}")
        started = self._stepper.step_started
        if started is not None and time.perf_counter() - started > self._stuck_after_s:
            raise RuntimeError(f"a step runs for more than {self._stuck_after_s:g} s")

    def footprint(self) -> Footprint:
        """Measure what the engine occupies now; weights are a draft's, too, without the caches."""
        footprint = self._decoder.footprint()
        if self._draft is None:
            return footprint
        both = footprint.weights_bytes + self._draft.footprint().weights_bytes
        return replace(footprint, weights_bytes=both)

    def close(self) -> None:
        """End the thread after the step that runs; sequences that have not ended get NotReady."""
        self._is_closing = True
        self._commands.put(None)
        self._worker.join(CLOSE_TIMEOUT_S)

    def _check_fits(self, request: TokenRequest) -> None:
        num_prompt, num_new = len(request.prompt), request.max_new_tokens
        assert num_prompt >= 1
        assert num_new >= 1 or request.logprobs_from is not None
        if num_prompt + num_new > self.max_tokens:
            raise InvalidField(
                f"the prompt has {num_prompt} tokens and max_tokens asks for {num_new} more, "
                f"{num_prompt + num_new} together; a sequence may have {self.max_tokens}",
                param="max_tokens",
            )

    def _check_room(self, request: TokenRequest) -> None:
        # A background request takes no place away from those that somebody waits for.
        alike = sum(job.request.background == request.background for job in self._unfinished)
        num_waiting = alike - self._decoder.num_slots
        if num_waiting >= self._max_waiting:
            raise QueueFull(
                f"{num_waiting} sequences wait already, as many as may; retry later",
                retry_after_s=1,
            )
        # Who was given up has no place any more, but the worker learns of it only after its step.
        if self._commands.qsize() >= 2 * (self._decoder.num_slots + self._max_waiting):
            raise QueueFull(
                "too many sequences came and went during one step; retry later", retry_after_s=1
            )

    def _cancel(self, job: SequenceJob) -> None:
        # May run in any thread, even while the worker handles commands: a dropped stream is
        # collected wherever the garbage collector happens to run.
        job.is_cancelled = True
        self._unfinished.discard(job)
        self._commands.put(job)

    def _draft_kv_cache_bytes(self) -> int:
        return 0 if self._draft is None else self._draft.kv_cache_bytes

    def _deliver(
        self,
        events: Sequence[tuple[SequenceJob, GeneratedToken | RequestError]],
        batch_size: int,
        drafted: DraftCounts,
    ) -> None:
        if batch_size and self._on_step is not None:
            self._on_step(batch_size)
        if drafted != NOTHING_DRAFTED and self._on_drafts is not None:
            self._on_drafts(drafted)
        for job, event in events:
            job.outbox.put_nowait(event)
            if isinstance(event, RequestError) or event.finish is not None:
                self._unfinished.discard(job)

    # What follows runs in the worker.

    def _work(self, make_stepper: Callable[[], Stepper], made: Future[Stepper]) -> None:
        try:
            stepper = make_stepper()
        except BaseException as error:
            made.set_exception(error)
            return
        made.set_result(stepper)
        reason: Callable[[], RequestError] = partial(
            NotReady, "the engine of this variant was closed", retry_after_s=1
        )
        try:
            while self._obey_commands(stepper):
                self._send(stepper.step(), stepper.batch_size, stepper.drafted)
        except BaseException:  # a panic of a library in Rust is no Exception
            logger.exception("the generator's thread ended")
            reason = partial(InternalError, "the generator failed; see the log of the replica")
        finally:
            self._end(stepper, reason)

    def _end(self, stepper: Stepper, reason: Callable[[], RequestError]) -> None:
        """Have it known that no step will follow, and tell all sequences that have not ended."""
        self._has_ended = True
        try:
            self._cores.give_back()
        finally:
            jobs = stepper.jobs
            while not self._commands.empty():
                command = self._commands.get()
                if command is not None and not command.is_cancelled:
                    jobs.append(command)
            with contextlib.suppress(RuntimeError):  # the event loop may be closed
                self._send([(job, reason()) for job in jobs], 0, NOTHING_DRAFTED)

    def _obey_commands(self, stepper: Stepper) -> bool:
        """Add and drop sequences; sleep while there is none. False once the engine is closed."""
        while stepper.is_idle or not self._commands.empty():
            if stepper.is_idle and self._commands.empty():
                self._cores.give_back()
            job = self._commands.get()
            if job is None:
                return False
            if job.is_cancelled:
                stepper.drop(job)
            else:
                stepper.add(job)
        return True

    def _send(
        self,
        events: Sequence[tuple[SequenceJob, GeneratedToken | RequestError]],
        batch_size: int,
        drafted: DraftCounts,
    ) -> None:
        if events or batch_size:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._deliver, events, batch_size, drafted)
