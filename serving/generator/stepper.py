"""The steps themselves: plan, decode, sample. Lives in one thread and knows no other."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serving.errors import InternalError, InvalidField, RequestError
from serving.generator.sampling import Sampler, prompt_log_probabilities
from serving.generator.scheduling import PromptBudget, Schedule, TokenSequence
from serving.seams import (
    Cores,
    Decoder,
    FinishReason,
    GeneratedToken,
    Progress,
    Segment,
    TokenLogprob,
    TokenRequest,
)

logger = logging.getLogger("ray.serve.quantserve")

Outbox = asyncio.Queue[GeneratedToken | RequestError | None]
"""What a sequence has for its consumer; None if nothing more will come since it was closed."""


@dataclass(slots=True, eq=False)
class SequenceJob:
    """A request, the sequence that it becomes, and what is measured of it on the way.

    Attributes:
        request: What is asked.
        outbox: Filled and emptied in the consumer's event loop.
        is_cancelled: Set by the consumer.
        arrived: When, by ``time.perf_counter``; likewise ``started`` (the first step that worked
            on it) and ``first_token``.
        prompt_logprobs: Collected until the first token takes them along.
        core_wait: Seconds that its steps waited for cores.
        prefill_core_wait: Those of them before the first token.
    """

    request: TokenRequest
    outbox: Outbox = field(default_factory=asyncio.Queue)
    is_cancelled: bool = False
    arrived: float = field(default_factory=time.perf_counter)
    started: float | None = None
    first_token: float | None = None
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    core_wait: float = 0
    prefill_core_wait: float = 0
    sequence: TokenSequence = field(init=False)
    sampler: Sampler = field(init=False)

    def __post_init__(self) -> None:
        self.sequence = TokenSequence(self.request)
        self.sampler = Sampler(self.request.sampling, self.request.prompt)


class Stepper:
    """Takes one step after the other for all sequences that were added and not dropped.

    Args:
        decoder: Computes; its slots are empty.
        cores: Where each step gets cores from.
        budget: Prompt tokens of one step.
    """

    def __init__(self, decoder: Decoder, cores: Cores, budget: PromptBudget) -> None:
        self.decoder = decoder
        self._cores = cores
        self.step_started: float | None = None
        """When the step that runs now began, by ``time.perf_counter``."""
        self.failures_in_a_row = 0
        self.batch_size = 0
        """Sequences of the latest step, those of background requests left out; 0 if it failed."""
        self._schedule = Schedule(decoder.num_slots, budget)
        self._jobs: dict[TokenSequence, SequenceJob] = {}

    @property
    def jobs(self) -> list[SequenceJob]:
        """Sequences that have not ended, in the order in which they were added."""
        return list(self._jobs.values())

    @property
    def is_idle(self) -> bool:
        """Whether there is no sequence to take a step for."""
        return self._schedule.is_empty

    def add(self, job: SequenceJob) -> None:
        """Begin a sequence."""
        self._jobs[job.sequence] = job
        self._schedule.add(job.sequence)

    def drop(self, job: SequenceJob, is_cache_valid: bool = True) -> None:
        """End a sequence; nothing happens if it has ended already."""
        if self._jobs.pop(job.sequence, None) is not None:
            self._schedule.remove(job.sequence, is_cache_valid)

    def step(self) -> list[tuple[SequenceJob, GeneratedToken | RequestError]]:
        """Take one step; at least one sequence must be there.

        Returns:
            The new tokens, and what ended a sequence before its time. If the decoder fails, all
            sequences of this step end, and what their slots held counts as lost.
        """
        shares = self._schedule.plan()
        jobs = [self._jobs[sequence] for sequence, _ in shares]
        segments = [segment for _, segment in shares]
        self.batch_size = 0
        asked = time.perf_counter()
        cores = self._cores.take(all(job.request.background for job in jobs))
        self.step_started = started = time.perf_counter()
        for job in jobs:
            job.core_wait += started - asked
            if job.started is None:
                job.started = asked
        try:
            self.decoder.use_cores(cores)
            logits = self.decoder.step(segments)
            events = self._advance(jobs, segments, logits)
        except Exception:  # whatever went wrong belongs to these sequences alone
            self.failures_in_a_row += 1
            logger.exception("a step with %d sequences failed", len(jobs))
            return [(job, self._fail(job)) for job in jobs]
        finally:
            self.step_started = None
        self.failures_in_a_row = 0
        self.batch_size = sum(not job.request.background for job in jobs)
        return events

    def _fail(self, job: SequenceJob) -> InternalError:
        self.drop(job, is_cache_valid=False)
        return InternalError("a step of the model failed; see the log of the replica")

    def _advance(
        self, jobs: Sequence[SequenceJob], segments: Sequence[Segment], logits: NDArray[np.float32]
    ) -> list[tuple[SequenceJob, GeneratedToken | RequestError]]:
        events: list[tuple[SequenceJob, GeneratedToken | RequestError]] = []
        row = 0
        for job, segment in zip(jobs, segments, strict=True):
            rows = logits[row : row + segment.num_logits]
            row += segment.num_logits
            job.sequence.num_cached += len(segment.token_ids)
            try:
                token = _next_token(job, segment, rows)
            except InvalidField as error:
                self.drop(job)
                events.append((job, error))
                continue
            except InternalError as error:
                logger.error("after %d tokens: %s", job.sequence.num_cached, error)
                self.drop(job, is_cache_valid=False)
                events.append((job, error))
                continue
            if token is not None:
                events.append((job, token))
                if token.finish is not None:
                    self.drop(job)
        return events


def _next_token(
    job: SequenceJob, segment: Segment, rows: NDArray[np.float32]
) -> GeneratedToken | None:
    """Read the logits of one sequence; None in the middle of its prompt."""
    request, tokens = job.request, job.sequence.tokens
    if request.logprobs_from is not None:
        end = job.sequence.num_cached
        following = request.prompt[end - segment.num_logits + 1 : end + 1]
        num_top = request.sampling.logprobs or 0
        job.prompt_logprobs.extend(prompt_log_probabilities(rows, following, num_top))
    if job.sequence.num_cached < len(tokens):
        return None
    token, logprob = job.sampler.choose(rows[-1])
    tokens.append(token)
    num_new = len(tokens) - len(request.prompt)
    finish: FinishReason | None = None
    if token in request.stop_tokens:
        finish = "stop"
    elif num_new >= request.max_new_tokens:
        finish = "length"
    prompt = tuple(job.prompt_logprobs) if num_new == 1 else ()
    return GeneratedToken(token, finish, _progress(job), logprob, prompt)


def _progress(job: SequenceJob) -> Progress:
    now = time.perf_counter()
    if job.first_token is None:
        job.first_token, job.prefill_core_wait = now, job.core_wait
    assert job.started is not None
    decode_core_wait = job.core_wait - job.prefill_core_wait
    return Progress(
        queue=job.started - job.arrived,
        prefill=job.first_token - job.started - job.prefill_core_wait,
        decode=now - job.first_token - decode_core_wait,
        cached_tokens=job.sequence.num_reused,
        prefill_core_wait=job.prefill_core_wait,
        decode_core_wait=decode_core_wait,
    )
