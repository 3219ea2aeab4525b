"""The new tokens of one sequence, out of the logits of a step."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from serving.generator.sampling import prompt_log_probabilities
from serving.generator.sequence_job import SequenceJob
from serving.seams import FinishReason, GeneratedToken, Progress, Segment


def next_tokens(
    job: SequenceJob, segment: Segment, rows: NDArray[np.float32]
) -> Iterator[GeneratedToken]:
    """Read the logits of one sequence: none in the middle of its prompt, else one token.

    More follow as long as each is the one that was proposed: only then are the next logits those
    of this text.

    Args:
        job: Whose sequence is advanced as the tokens are taken.
        segment: What the decoder got of it: tokens that it has, then proposed ones.
        rows: float32 (the segment's ``num_logits``, vocabulary).

    Raises:
        InternalError, InvalidField: As ``Sampler.choose``, after the tokens before.
    """
    request, sequence = job.request, job.sequence
    known = len(sequence.tokens) - segment.start
    proposed = segment.token_ids[known:]
    sequence.num_cached = segment.start + len(segment.token_ids) - len(proposed)
    if request.logprobs_from is not None:
        _score_prompt(job, rows[: len(rows) - len(proposed)])
    if sequence.num_cached < len(sequence.tokens):
        return
    for place, row in enumerate(rows[len(rows) - 1 - len(proposed) :]):
        token = _choose(job, row)
        yield token
        if token.finish is not None or place == len(proposed) or token.token != proposed[place]:
            return
        sequence.num_cached += 1


def _score_prompt(job: SequenceJob, rows: NDArray[np.float32]) -> None:
    request, end = job.request, job.sequence.num_cached
    following = request.prompt[end - len(rows) + 1 : end + 1]
    num_top = request.sampling.logprobs or 0
    job.prompt_logprobs.extend(prompt_log_probabilities(rows, following, num_top))


def _choose(job: SequenceJob, logits: NDArray[np.float32]) -> GeneratedToken:
    request, tokens = job.request, job.sequence.tokens
    token, logprob = job.sampler.choose(logits)
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
