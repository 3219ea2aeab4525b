"""What is asked of an encoder, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Input = str | tuple[str, str]
"""What one answer is about: a text, or a pair such as a query and a document."""


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """What a request may ask of embeddings; None leaves it to the checkpoint.

    Attributes:
        dimensions: Leading numbers to keep, scaled to length 1 again if the vectors are.
        prompt_name: Which of the checkpoint's prompts stands before every text.
        normalize: Whether vectors have length 1.
    """

    dimensions: int | None = None
    prompt_name: str | None = None
    normalize: bool | None = None


NO_OPTIONS = AnswerOptions()


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """What a route asks of a backend.

    Attributes:
        inputs: One answer each.
        truncate: Cut over-long inputs to the model's limit instead of refusing them.
        options: What else is asked of the answers.
        timeout_s: Seconds that may pass until the answer.
        background: Nobody waits for it: it is refused with QueueFull while the replica has other
            work, and counts in no metric of requests. What it takes of an engine (its queue, its
            places, its cache) shows in the gauges of the engine.
        token_ids: Inputs as the model's own token ids, in place of ``inputs``.
    """

    inputs: tuple[Input, ...]
    truncate: bool
    options: AnswerOptions
    timeout_s: float
    background: bool = False
    token_ids: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Timings:
    """Where one request's time went, in seconds.

    ``queue`` runs from the end of tokenizing until the first forward pass that serves the request
    may begin. From there to the end of the last one, ``core_wait`` is the time that its passes
    waited for a core which other replicas had, and ``forward`` the rest. ``total`` is at least the
    sum of all.
    """

    queue: float
    tokenize: float
    core_wait: float
    forward: float
    total: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to one request with its timings.

    Attributes:
        rows: float32 (inputs, width): embeddings, probabilities of labels, scores.
        labels: Name of each column of a classification; empty for other tasks.
        tokens: Number of tokens of all inputs, special tokens included.
        timings: Where the time went inside the replica.
    """

    rows: NDArray[np.float32]
    labels: tuple[str, ...]
    tokens: int
    timings: Timings
