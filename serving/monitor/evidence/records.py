"""What is kept of the quality of a variant, and what it belongs to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.seams import Comparison, Input, LabelReport, VerdictChange

MEASURES_VERSION = 1
"""Raised whenever a measure comes to mean something else: what was measured before then no longer
counts, since it is part of every digest."""


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """What evidence belongs to: one artifact beside another, under names that people know.

    Attributes:
        artifact: Id of the variant's artifact.
        reference_artifact: Id of the reference's; of the reference itself, the same.
        max_tokens: The model's limit for an input's tokens; None for the checkpoint's own. Longer
            inputs are cut there, which changes answers.
    """

    model: str
    variant: str
    artifact: str
    reference: str
    reference_artifact: str
    max_tokens: int | None


@dataclass(frozen=True, slots=True)
class ProbeStep:
    """What came of one turn of probing; see ``Judge.probe``.

    Attributes:
        number: Of the turn, from 0.
        answered: Probes that were answered in it.
        comparisons: With the reference's answers, as far as there are any.
        seconds: What one answer took without waiting; None where several were asked at once.
        rows: float32 (answered, width): an encoder's answers; None of others.
    """

    number: int
    answered: int
    comparisons: tuple[Comparison, ...]
    seconds: float | None
    rows: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class LiveSample:
    """A live request that was compared; its input only where ``quality.keep_samples`` allows it."""

    comparison: Comparison
    input: Input | None


@dataclass(frozen=True, slots=True)
class KnownEvidence:
    """What is known of a pair.

    Attributes:
        steps: Turns of probing from the first one on, none missing.
        live: The latest live samples, and earlier ones whose inputs were kept, the oldest first.
        num_live: How many there are in all.
        labels: The latest result on the labelled data; None without one.
        last_verdict: Of the variant, whatever its artifact was; None before the first.
    """

    steps: tuple[ProbeStep, ...]
    live: tuple[LiveSample, ...]
    num_live: int
    labels: LabelReport | None
    last_verdict: VerdictChange | None


NOTHING_KNOWN = KnownEvidence((), (), 0, None, None)


def digest(*parts: Any) -> str:
    """Name a set of inputs by everything that decides what is measured with it.

    Args:
        parts: Whatever JSON can hold.
    """
    content = json.dumps([MEASURES_VERSION, *parts], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def file_digest(file: Path) -> str | None:
    """Likewise of a file's bytes; None if it cannot be read."""
    try:
        with file.expanduser().open("rb") as content:
            return digest(file.suffix, hashlib.file_digest(content, "sha256").hexdigest())
    except OSError:
        return None
