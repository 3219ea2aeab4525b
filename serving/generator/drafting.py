"""A cheap decoder proposes the tokens that an exact one then checks, many in one step."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serving.errors import RequestError
from serving.generator.draft_length import DraftLength
from serving.generator.sampling import Sampler
from serving.generator.scheduling import TokenSequence, num_common
from serving.generator.sequence_job import SequenceJob
from serving.seams import Decoder, DraftCounts, Segment

logger = logging.getLogger("ray.serve.quantserve")

NOTHING_DRAFTED = DraftCounts(0, 0, 0)


@dataclass(slots=True)
class _Draft:
    """What is proposed for one sequence."""

    job: SequenceJob
    limit: int
    sampler: Sampler = field(init=False)
    tokens: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sampler = self.job.sampler.fork()

    @property
    def sequence(self) -> TokenSequence:
        return self.job.sequence

    def choose(self, logits: NDArray[np.float32]) -> None:
        """Propose one more, and no more after that if none can follow."""
        try:
            token, _ = self.sampler.choose(logits)
        except RequestError:  # the exact decoder's logits will tell whether the request is wrong
            self.limit = len(self.tokens)
            return
        self.tokens.append(token)
        if token in self.job.request.stop_tokens:
            self.limit = len(self.tokens)

    @property
    def is_open(self) -> bool:
        return len(self.tokens) < self.limit


class Drafter:
    """Proposes tokens with a decoder that has the same slots as the one that checks them.

    A slot of the draft holds what was proposed and what came of it, up to the first token that was
    rejected. It is behind while nothing is proposed, and catches up a piece at a time.

    Args:
        decoder: Computes; its slots are empty.
        length: Tokens to propose at once; None chooses by what is measured.
    """

    def __init__(self, decoder: Decoder, length: int | None) -> None:
        self.decoder = decoder
        self._length = DraftLength(length)
        self._holders: dict[int, TokenSequence] = {}
        self._num_held = [0] * decoder.num_slots
        self._draft_s = 0.0
        self.counts = NOTHING_DRAFTED
        """What became of all tokens that were proposed."""

    def propose(
        self, jobs: Sequence[SequenceJob], budget: int, vocabulary: int
    ) -> dict[SequenceJob, list[int]]:
        """Propose the next tokens of sequences that decode, each as its sampler would choose.

        Args:
            jobs: At least one, each with a slot and its whole prompt in the exact decoder's cache.
            budget: Most tokens to catch up with, of all sequences together.
            vocabulary: Tokens that the exact decoder has.

        Returns:
            Tokens for each, none where none pays or can be had.
        """
        length = self._length.choose(len(jobs))
        self._draft_s = 0.0
        drafts = [draft for job in jobs if (draft := _begin(job, length)) is not None]
        try:
            drafts = self._catch_up(drafts, budget)
            started = time.perf_counter()
            while open_drafts := [draft for draft in drafts if draft.is_open]:
                logits = self._step([self._segment(draft) for draft in open_drafts])
                for draft, row in zip(open_drafts, logits, strict=True):
                    draft.choose(row[:vocabulary])
            self._draft_s = time.perf_counter() - started
        except Exception:  # whatever a kernel raises
            logger.exception("drafting fails; %d sequences go on without", len(drafts))
            for draft in drafts:
                draft.job.can_draft = False
                self._forget(draft.sequence)
            return {}
        return {draft.job: draft.tokens for draft in drafts}

    def learn(self, lengths: Sequence[int], check_s: float) -> None:
        """Take how long the step took that checked so many tokens of each sequence."""
        if len(set(lengths)) == 1:
            self._length.learn(len(lengths), lengths[0], self._draft_s, check_s)

    def judge(self, counts: DraftCounts) -> None:
        """Take what became of the tokens of one sequence."""
        self.counts += counts
        self._length.judge(counts)

    def _catch_up(self, drafts: Sequence[_Draft], budget: int) -> list[_Draft]:
        """Bring slots up to the newest token but one; returns the drafts that can begin."""
        segments, ready = [], []
        for draft in drafts:
            tokens, held = draft.sequence.tokens, self._held(draft.sequence)
            number = min(len(tokens) - 1 - held, budget)
            if number > 1:
                budget -= number
                segments.append(_segment(draft.sequence, held, tokens[held : held + number], 0))
                held += number
            # A single one goes along with the newest.
            if len(tokens) - held <= 2:
                ready.append(draft)
        if segments:
            self._step(segments)
        return ready

    def _held(self, sequence: TokenSequence) -> int:
        """Leading tokens of a sequence that the draft's slot holds."""
        slot = sequence.slot
        assert slot is not None
        before = self._holders.get(slot)
        if before is not sequence:
            if before is not None:
                held = before.tokens[: min(self._num_held[slot], before.num_cached)]
                self._num_held[slot] = num_common(held, sequence.tokens)
            self._holders[slot] = sequence
        # What was proposed and rejected stands behind what the exact decoder holds.
        self._num_held[slot] = min(self._num_held[slot], sequence.num_cached)
        return self._num_held[slot]

    def _segment(self, draft: _Draft) -> Segment:
        sequence = draft.sequence
        assert sequence.slot is not None
        held, known = self._num_held[sequence.slot], len(sequence.tokens)
        tokens = sequence.tokens[held:] + draft.tokens[max(held - known, 0) :]
        return _segment(sequence, held, tokens, 1)

    def _step(self, segments: Sequence[Segment]) -> NDArray[np.float32]:
        logits = self.decoder.step(segments)
        for segment in segments:
            self._num_held[segment.slot] = segment.start + len(segment.token_ids)
        return logits

    def _forget(self, sequence: TokenSequence) -> None:
        assert sequence.slot is not None
        self._num_held[sequence.slot] = 0


def judged(proposed: Sequence[int], chosen: Sequence[int]) -> DraftCounts:
    """Say what became of proposed tokens, given what the exact decoder chose in their places."""
    accepted = num_common(proposed, chosen)
    rejected = int(accepted < min(len(proposed), len(chosen)))
    return DraftCounts(accepted, rejected, len(proposed) - accepted - rejected)


def _begin(job: SequenceJob, length: int) -> _Draft | None:
    num_new = len(job.sequence.tokens) - len(job.request.prompt)
    # The step that checks them chooses one more itself.
    limit = min(length, job.request.max_new_tokens - num_new - 1)
    return _Draft(job, limit) if limit > 0 and job.can_draft else None


def _segment(
    sequence: TokenSequence, start: int, tokens: Sequence[int], num_logits: int
) -> Segment:
    assert sequence.slot is not None
    return Segment(sequence.slot, start, tokens, num_logits)
