"""What transformers' continuous batching is told of each step, and what is learnt of it.

The library draws all rows of a step with one set of options and one seed, so it only takes the
largest score of each row here, and what it believes to be its list of logits processors leaves
exactly one score to take: the token that ``TokenChooser`` chose.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers.generation.continuous_batching.requests import FutureRequestState

from serving.generator.sequence_job import Outbox
from serving.runtimes.torch.cuda.token_chooser import (
    FREE,
    LEAST_TEMPERATURE,
    NUM_FLOATS,
    NUM_INTEGERS,
    TokenChooser,
    encode_arguments,
)
from serving.seams import TokenLogprob, TokenRequest


@dataclass(slots=True, eq=False)
class Job:
    """A sequence, and what is measured of it; times by ``time.perf_counter``.

    The event loop gives it a slot and takes it away. What changes from step to step belongs to
    the library's thread.

    The library gets ``given`` as its prompt. What stands behind that of a prompt whose tokens are
    scored, ``forced``, it is made to generate, so that each comes with its log-probability:
    ``scores``. ``generated`` are the tokens that came after the prompt.
    """

    id: str
    request: TokenRequest
    outbox: Outbox = field(default_factory=asyncio.Queue)
    is_cancelled: bool = False
    arrived: float = field(default_factory=time.perf_counter)
    submitted: float = 0.0
    slot: int | None = None
    started: float | None = None
    first_token: float | None = None
    num_held: int = 0
    num_reused: int = 0
    given: tuple[int, ...] = field(init=False)
    forced: tuple[int, ...] = field(init=False)
    scores: list[TokenLogprob] = field(default_factory=list)
    generated: list[int] = field(default_factory=list)
    has_finished: bool = False
    uniform: Callable[[], float] = field(init=False)

    def __post_init__(self) -> None:
        self._seed()
        prompt = self.request.prompt
        num_given = self.request.logprobs_from or len(prompt)
        self.given, self.forced = prompt[:num_given], prompt[num_given:]

    def restart(self, new_id: str) -> None:
        """Begin again: what it has generated is made to come again, and is not delivered twice."""
        self.id, self.slot, self.has_finished = new_id, None, False
        self.scores = []
        self._seed()

    def _seed(self) -> None:
        key = self.request.sampling.seed & (2**128 - 1)
        self.uniform = np.random.Generator(np.random.Philox(key=key)).random


class Steps:
    """Stands where the library wants its list of logits processors: sees each step and chooses.

    Args:
        jobs: Those that the library has, by id; the event loop changes it.
        chooser: Chooses tokens.
        is_captured: Whether a step may be replayed from a graph that was made for another.
    """

    tensors_required = NUM_INTEGERS + NUM_FLOATS
    do_processing = True

    def __init__(
        self, jobs: Mapping[str, Job], chooser: TokenChooser, is_captured: bool = False
    ) -> None:
        self.last_began = 0.0
        self._sizes: list[int] = []
        self._jobs = jobs
        self._chooser = chooser
        self._is_captured = is_captured
        self._features = (True, True, True)
        # Rows that pad a step to the size of a graph write where nobody reads.
        self._idle_row = ([chooser.num_slots, 1, 1, FREE], [0.0] * NUM_FLOATS)

    def check_kwargs(self, kwargs: Mapping[str, object]) -> None:
        """Accept a request; none has arguments of its own."""
        assert not kwargs

    def fill_defaults(self, storage: Tensor) -> None:
        """Fill (tensors_required, 1) with what suits a row that nobody reads."""
        storage.copy_(encode_arguments([self._idle_row]))

    def prepare_tensor_args(
        self, requests_in_batch: Sequence[FutureRequestState], arg_storage: Tensor
    ) -> Tensor:
        """Note that a step begins, and write the arguments of its rows."""
        self.last_began = time.perf_counter()
        rows = []
        jobs = [self._jobs.get(future.state.request_id) for future in requests_in_batch]
        for job, future in zip(jobs, requests_in_batch, strict=True):
            if job is not None:
                self._note(job, future)
            if future.has_new_token:
                rows.append(self._idle_row if job is None else self._row(job))
        self._sizes.append(sum(job is not None and not job.request.background for job in jobs))
        rows += [self._idle_row] * (self._chooser.num_slots - len(rows))
        arg_storage[:, : len(rows)] = encode_arguments(rows)
        if not self._is_captured:
            asked = [job.request.sampling for job in jobs if job is not None]
            self._features = (
                any(sampling.temperature for sampling in asked),
                any(s.frequency_penalty or s.presence_penalty for s in asked),
                any(sampling.logprobs for sampling in asked),
            )
        return arg_storage

    def __call__(self, input_ids: Tensor, scores: Tensor, logits_processor_args: Tensor) -> Tensor:
        """Return scores (rows, vocabulary) of which the chosen token has the largest."""
        tokens = self._chooser.choose(scores, logits_processor_args, *self._features)
        return torch.zeros_like(scores).scatter_(1, tokens.unsqueeze(1), 1.0)

    def take_sizes(self) -> list[int]:
        """Return how many sequences each step worked on since the last call.

        Those of background requests are left out.
        """
        sizes, self._sizes = self._sizes, []
        return sizes

    def _note(self, job: Job, future: FutureRequestState) -> None:
        job.num_held = future.state.position_offset  # counts the tokens of this step already
        if job.started is None:
            job.started = self.last_began
            job.num_reused = job.num_held - future.query_length

    def _row(self, job: Job) -> tuple[list[int], list[float]]:
        sampling, prompt = job.request.sampling, job.request.prompt
        assert job.slot is not None
        if job.num_held < len(prompt):
            return [job.slot, 1, 1, prompt[job.num_held]], [0.0] * NUM_FLOATS
        is_first = job.num_held == len(prompt)
        # Cut, not rounded, to the 24 bits of a float32: rounding could make it 1.
        uniform = math.floor(job.uniform() * 2**24) / 2**24 if sampling.temperature else 0.0
        temperature = max(sampling.temperature, LEAST_TEMPERATURE) if sampling.temperature else 0.0
        earlier = job.generated[job.num_held - len(prompt) :]  # of one that began again
        forced = earlier[0] if earlier else FREE
        return (
            [job.slot, is_first, min(sampling.top_k or 2**31 - 1, 2**31 - 1), forced],
            [
                temperature,
                sampling.top_p,
                uniform,
                sampling.frequency_penalty,
                sampling.presence_penalty,
            ],
        )
