"""The steps themselves: plan, decode, sample. Lives in one thread and knows no other."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from serving.errors import InputFails, InternalError, InvalidField, RequestError
from serving.generator.drafting import NOTHING_DRAFTED, Drafter, judged
from serving.generator.new_tokens import next_tokens
from serving.generator.scheduling import PromptBudget, Schedule, TokenSequence
from serving.generator.sequence_job import SequenceJob
from serving.rust_panics import panics_as_errors
from serving.seams import (
    Cores,
    Decoder,
    GeneratedToken,
    Segment,
    SharesPrefixes,
)

logger = logging.getLogger("ray.serve.quantserve")

NUM_PROVEN_TOKENS = 8
"""So many leading tokens of the first prompt that was answered are kept for self-tests."""


class Stepper:
    """Takes one step after the other for all sequences that were added and not dropped.

    When a step fails, each of its sequences takes it again alone. One that still fails, or whose
    logits are NaN or infinite, ends; in its slot the decoder is asked for a prompt that it has
    answered before. If it fails there, too, it is broken; if not, the fault is that sequence's.

    Args:
        decoder: Computes; its slots are empty.
        cores: Where each step gets cores from.
        budget: Prompt tokens of one step.
        drafter: Proposes tokens, which a step checks before it chooses one more; its decoder has as
            many slots. Every token is chosen by the decoder's logits and the sequence's sampler
            alone, so that a draft changes when tokens come, and none of them.
    """

    def __init__(
        self,
        decoder: Decoder,
        cores: Cores,
        budget: PromptBudget,
        drafter: Drafter | None = None,
    ) -> None:
        self.decoder = decoder
        self.drafter = drafter
        self._cores, self._budget = cores, budget
        self._vocabulary = 0
        self.step_started: float | None = None
        """When the step that runs now began, by ``time.perf_counter``."""
        self.broken: str | None = None
        """What is wrong with the decoder, since the last sequence that it continued."""
        self._proven: Sequence[int] = ()
        self.batch_size = 0
        """Sequences of the latest step, those left out that failed or are background requests'."""
        self.drafted = NOTHING_DRAFTED
        """What became of the tokens that were proposed for the latest step."""
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
        self.batch_size, self.drafted = 0, NOTHING_DRAFTED
        asked = time.perf_counter()
        cores = self._cores.take(all(job.request.background for job in jobs))
        self.step_started = started = time.perf_counter()
        for job in jobs:
            job.core_wait += started - asked
            if job.started is None:
                job.started = asked
        try:
            self.decoder.use_cores(cores)
            if self.drafter is None:
                events = self._decode(jobs, segments)
            else:
                self.drafter.decoder.use_cores(cores)
                events = self._check_drafts(self.drafter, jobs, segments)
        finally:
            self.step_started = None
        failed = {job for job, event in events if isinstance(event, RequestError)}
        self.batch_size = sum(not (job in failed or job.request.background) for job in jobs)
        return events

    def _check_drafts(
        self, drafter: Drafter, jobs: Sequence[SequenceJob], segments: Sequence[Segment]
    ) -> list[tuple[SequenceJob, GeneratedToken | RequestError]]:
        """Have tokens proposed where a sequence decodes, and decode all of it."""
        decoding = [job for job in jobs if job.sequence.is_decoding]
        proposed: dict[SequenceJob, list[int]] = {}
        if decoding:
            budget = self._budget.idle if len(jobs) == 1 else self._budget.busy
            proposed = drafter.propose(decoding, budget, self._vocabulary)
        lengths = [len(job.sequence.tokens) for job in decoding]
        started = time.perf_counter()
        events = self._decode(
            jobs,
            [
                _extended(segment, proposed.get(job, ()))
                for job, segment in zip(jobs, segments, strict=True)
            ],
        )
        if decoding and len(decoding) == len(jobs):  # prompts would take part of the time
            drafter.learn(
                [len(proposed.get(job, ())) for job in jobs], time.perf_counter() - started
            )
        for job, length in zip(decoding, lengths, strict=True):
            self.drafted += judged(proposed.get(job, ()), job.sequence.tokens[length:])
        drafter.judge(self.drafted)
        return events

    def _decode(
        self, jobs: Sequence[SequenceJob], segments: Sequence[Segment]
    ) -> list[tuple[SequenceJob, GeneratedToken | RequestError]]:
        try:
            logits = self.decoder.step(segments)
            num_wanted = sum(segment.num_logits for segment in segments)
            if len(logits) != num_wanted:
                raise RuntimeError(f"the decoder gave {len(logits)} rows instead of {num_wanted}")
            self._vocabulary = logits.shape[1]
        except Exception:  # whatever a kernel raises
            logger.exception("a step with %d sequences failed", len(jobs))
        else:
            return self._advance(jobs, segments, logits)
        if len(jobs) == 1:
            return self._retry_or_fail(jobs[0], segments[0], "the model fails on this sequence")
        events: list[tuple[SequenceJob, GeneratedToken | RequestError]] = []
        for job, segment in zip(jobs, segments, strict=True):
            events += self._decode([job], [segment])
        return events

    def _retry_or_fail(
        self, job: SequenceJob, segment: Segment, what: str
    ) -> list[tuple[SequenceJob, GeneratedToken | RequestError]]:
        """End a sequence, unless tokens were tried with it that it might not have come to."""
        sequence = job.sequence
        if segment.start + len(segment.token_ids) <= len(sequence.tokens):
            return [(job, self._fail(job, what))]
        job.can_draft = False
        sequence.num_cached = len(sequence.tokens) - 1
        return self._decode(
            [job], [Segment(segment.slot, sequence.num_cached, sequence.tokens[-1:])]
        )

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
        broken: list[tuple[SequenceJob, Segment]] = []
        row = 0
        for job, segment in zip(jobs, segments, strict=True):
            rows = logits[row : row + segment.num_logits]
            row += segment.num_logits
            try:
                with panics_as_errors():  # of the library that follows a grammar
                    for token in next_tokens(job, segment, rows):
                        self._prove(job)
                        events.append((job, token))
                        if token.finish is not None:
                            self.drop(job)
            except InvalidField as error:
                self.drop(job)
                events.append((job, error))
            except InternalError as error:
                logger.error("after %d tokens: %s", job.sequence.num_cached, error)
                broken.append((job, segment))
            except Exception:  # a fault in choosing tokens is no other sequence's
                logger.exception("a token could not be chosen")
                self.drop(job, is_cache_valid=False)
                failed = InternalError("no token could be chosen; see the log of the replica")
                events.append((job, failed))
        # Only now: a decoder may give its next logits in the place of these.
        what = "the model gives logits that are NaN or infinite on this sequence"
        for job, segment in broken:
            events += self._retry_or_fail(job, segment, what)
        return events

    def _prove(self, job: SequenceJob) -> None:
        self.broken = None
        if not self._proven:
            self._proven = job.request.prompt[:NUM_PROVEN_TOKENS]


def _extended(segment: Segment, proposed: Sequence[int]) -> Segment:
    """Have a segment's newest token followed by what is proposed, with logits after each."""
    return replace(
        segment,
        token_ids=[*segment.token_ids, *proposed],
        num_logits=segment.num_logits + len(proposed),
    )
