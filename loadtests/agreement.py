"""How variants' answers in a load test agree with the reference's to the same inputs."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

import serving.seams
from loadtests.plan import Operation
from loadtests.results import Agreement, IntervalEstimate
from loadtests.samples import Floats
from serving.quality.agreement import cosine_similarities
from serving.quality.statistics import mean, mean_of_shares, share

Key = tuple[int, int]
"""Round from 0, and the request's index within it."""

Pair = tuple[bytes, bytes]
"""A variant's answer and the reference's, to the same input."""


def pair(
    ours: Sequence[dict[int, bytes]], reference: Sequence[dict[int, bytes]]
) -> dict[Key, Pair]:
    """Pair the answers of each round by the request's index, where both have one.

    Args:
        ours: By round, then by index; the request of an index had the same input for both.
        reference: The same of the reference.
    """
    return {
        (number, index): (mine[index], theirs[index])
        for number, (mine, theirs) in enumerate(zip(ours, reference, strict=False))
        for index in sorted(mine.keys() & theirs.keys())
    }


def agreements(operation: Operation, pairs: Sequence[Pair]) -> Floats:
    """How much each pair agrees, (pairs,); NaN of a pair that cannot be read.

    Cosines of embeddings; 1 and 0 for the same or another label or text.
    """
    compare = _COMPARE[operation]
    return np.array([compare(ours, theirs) for ours, theirs in pairs], np.float64)


def agreement(operation: Operation, pairs: Sequence[Pair], values: Floats) -> Agreement | None:
    """All pairs together; None without any that can be read.

    Args:
        operation: Of the requests.
        pairs: The answers.
        values: Their ``agreements``.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    if operation == "embeddings":
        return Agreement(measure="cosine", estimate=_estimate(mean(known)), pairs=len(known))
    same = _estimate(share(int(known.sum()), len(known)))
    if operation == "classify":
        return Agreement(measure="same_label", estimate=same, pairs=len(known))
    prefixes = [_common_prefix(ours.decode(), theirs.decode()) for ours, theirs in pairs]
    return Agreement(
        measure="same_text",
        estimate=same,
        common_prefix=_estimate(mean_of_shares(prefixes)),
        pairs=len(known),
    )


def _cosine(ours: bytes, theirs: bytes) -> float:
    a, b = _vector(ours), _vector(theirs)
    if a is None or b is None or a.shape != b.shape or not (a.any() and b.any()):
        return math.nan
    return float(cosine_similarities(a[None].astype(np.float32), b[None].astype(np.float32))[0])


def _same_label(ours: bytes, theirs: bytes) -> float:
    a, b = _label(ours), _label(theirs)
    return math.nan if a is None or b is None else float(a == b)


def _same_text(ours: bytes, theirs: bytes) -> float:
    return float(ours == theirs)


def _common_prefix(ours: str, theirs: str) -> float:
    if not theirs:
        return float(ours == theirs)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False))
    return sum(1 for _ in same) / len(theirs)


def _estimate(found: serving.seams.Estimate) -> IntervalEstimate:
    """As results hold it: an end that is not finite is none."""
    low, high = (end if math.isfinite(end) else None for end in (found.low, found.high))
    return IntervalEstimate(value=found.value, low=low, high=high)


_COMPARE: dict[Operation, Callable[[bytes, bytes], float]] = {
    "embeddings": _cosine,
    "classify": _same_label,
    "completions": _same_text,
    "chat": _same_text,
}


def _vector(answer: bytes) -> NDArray[np.float32] | None:
    """The first embedding of an answer, (width,), from base64 or numbers; None if there is none."""
    found = _first(answer, "embedding")
    try:
        if isinstance(found, str):
            return np.frombuffer(base64.b64decode(found), "<f4")
        return np.asarray(found, np.float32) if isinstance(found, list) else None
    except (ValueError, TypeError):
        return None


def _label(answer: bytes) -> str | None:
    found = _first(answer, "label")
    return found if isinstance(found, str) else None


def _first(answer: bytes, key: str) -> Any:
    try:
        return orjson.loads(answer)["data"][0][key]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return None
