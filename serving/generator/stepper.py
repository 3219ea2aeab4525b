"""The steps themselves: plan, decode, sample. Lives in one thread and knows no other."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serving.errors import InputFails, InternalError, InvalidField, RequestError
from serving.generator.sampling import Sampler, prompt_log_probabilities
from serving.generator.scheduling import PromptBudget, Schedule, TokenSequence
from serving.seams import (
    Cores,
    Decoder,
    FinishReason,
    GeneratedToken,
    Progress,
    Segment,
    SharesPrefixes,
    TokenLogprob,
    TokenRequest,
)

logger = logging.getLogger("ray.serve.quantserve")

NUM_PROVEN_TOKENS = 8
"""So many leading tokens of the first prompt that was answered are kept for self-tests."""

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

    When a step fails, each of its sequences takes it again alone. One that still fails, or whose
    logits are NaN or infinite, ends; in its slot the decoder is asked for a prompt that it has
    answered before. If it fails there, too, it is broken; if not, the fault is that sequence's.

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
        self.broken: str | None = None
        """What is wrong with the decoder, since the last sequence that it continued."""
        self._proven: Sequence[int] = ()
        self.batch_size = 0
        """Sequences of the latest step, those left out that failed or are background requests'."""
        share = decoder.share_prefix if isinstance(decoder, SharesPrefixes) else None
        self._schedule = Schedule(decoder.num_slots, budget, share)
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
            The new tokens, and what ended a sequence before its time. What the slot of such a one
            held counts as lost.
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
            events = self._decode(jobs, segments)
        finally:
            self.step_started = None
        failed = {job for job, event in events if isinstance(event, RequestError)}
        self.batch_size = sum(not (job in failed or job.request.background) for job in jobs)
        return events

    def _decode(
        self, jobs: Sequence[SequenceJob], segments: Sequence[Segment]
    ) -> list[tuple[SequenceJob, GeneratedToken | RequestError]]:
        try:
            logits = self.decoder.step(segments)
            num_wanted = sum(segment.num_logits for segment in segments)
            if len(logits) != num_wanted:
                raise RuntimeError(f"the decoder gave {len(logits)} rows instead of {num_wanted}")
        except Exception:  # whatever a kernel raises
            logger.exception("a step with %d sequences failed", len(jobs))
        else:
            return self._advance(jobs, segments, logits)
        if len(jobs) == 1:
            return [(jobs[0], self._fail(jobs[0], "the model fails on this sequence"))]
        events: list[tuple[SequenceJob, GeneratedToken | RequestError]] = []
        for job, segment in zip(jobs, segments, strict=True):
            events += self._decode([job], [segment])
        return events

    def _fail(self, job: SequenceJob, what: str) -> RequestError:
        """End a sequence, and find out whose fault it is."""
        self.broken = self._test(job)
        self.drop(job, is_cache_valid=False)
        if self.broken is None:
            return InputFails(f"{what}, and not on others; another variant may continue it")
        logger.error("the decoder fails on a prompt that it had answered: %s", self.broken)
        return InternalError("the model fails on every prompt; see the log of the replica")

    def _test(self, job: SequenceJob) -> str | None:
        """Have the decoder answer the proven prompt in the slot of a sequence that has ended."""
        if not self._proven:
            return "it has never answered one"
        assert job.sequence.slot is not None
        try:
            logits = self.decoder.step([Segment(job.sequence.slot, 0, self._proven)])
            is_finite = logits.shape[0] == 1 and np.isfinite(logits.max())
        except Exception as error:  # whatever a kernel raises
            return f"{type(error).__name__}: {error}"
        return None if is_finite else "its logits are NaN or infinite"

    def _advance(
        self, jobs: Sequence[SequenceJob], segments: Sequence[Segment], logits: NDArray[np.float32]
    ) -> list[tuple[SequenceJob, GeneratedToken | RequestError]]:
        events: list[tuple[SequenceJob, GeneratedToken | RequestError]] = []
        broken: list[SequenceJob] = []
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
                broken.append(job)
                continue
            except Exception:  # a fault in choosing tokens is no other sequence's
                logger.exception("a token could not be chosen")
                self.drop(job, is_cache_valid=False)
                failed = InternalError("no token could be chosen; see the log of the replica")
                events.append((job, failed))
                continue
            if token is not None:
                self._prove(job)
                events.append((job, token))
                if token.finish is not None:
                    self.drop(job)
        # Only now: a decoder may give its next logits in the place of these.
        what = "the model gives logits that are NaN or infinite on this sequence"
        return events + [(job, self._fail(job, what)) for job in broken]

    def _prove(self, job: SequenceJob) -> None:
        self.broken = None
        if not self._proven:
            self._proven = job.request.prompt[:NUM_PROVEN_TOKENS]


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
