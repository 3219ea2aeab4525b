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
from loadtests.results import Agreement, Estimate
from serving.quality.agreement import cosine_similarities
from serving.quality.statistics import mean, mean_of_shares, share

Pairs = list[tuple[bytes, bytes]]
"""A variant's answer and the reference's, to the same input."""


def pair(ours: Sequence[dict[int, bytes]], reference: Sequence[dict[int, bytes]]) -> Pairs:
    """Pair the answers of each round by the request's index, where both have one.

    Args:
        ours: By round, then by index; the request of an index had the same input for both.
        reference: The same of the reference.
    """
    return [
        (mine[index], theirs[index])
        for mine, theirs in zip(ours, reference, strict=False)
        for index in sorted(mine.keys() & theirs.keys())
    ]


def agreement(operation: Operation, pairs: Pairs) -> Agreement | None:
    """Compare the pairs as the operation asks; None without any that can be read."""
    return _COMPARE[operation](pairs) if pairs else None


def _embeddings(pairs: Pairs) -> Agreement | None:
    rows = [(a, b) for a, b in ((_vector(x), _vector(y)) for x, y in pairs) if _comparable(a, b)]
    if not rows:
        return None
    ours, theirs = (np.stack(side).astype(np.float32) for side in zip(*rows, strict=True))
    cosines = cosine_similarities(ours, theirs)
    return Agreement(measure="cosine", estimate=_estimate(mean(cosines.tolist())), pairs=len(rows))


def _comparable(a: NDArray[np.float32] | None, b: NDArray[np.float32] | None) -> bool:
    return a is not None and b is not None and a.shape == b.shape and bool(a.any() and b.any())


def _classify(pairs: Pairs) -> Agreement | None:
    labels = [(_label(ours), _label(theirs)) for ours, theirs in pairs]
    known = [(ours, theirs) for ours, theirs in labels if None not in (ours, theirs)]
    if not known:
        return None
    same = sum(ours == theirs for ours, theirs in known)
    estimate = _estimate(share(same, len(known)))
    return Agreement(measure="same_label", estimate=estimate, pairs=len(known))


def _texts(pairs: Pairs) -> Agreement | None:
    same = sum(ours == theirs for ours, theirs in pairs)
    prefixes = [_common_prefix(ours.decode(), theirs.decode()) for ours, theirs in pairs]
    return Agreement(
        measure="same_text",
        estimate=_estimate(share(same, len(pairs))),
        common_prefix=_estimate(mean_of_shares(prefixes)),
        pairs=len(pairs),
    )


def _common_prefix(ours: str, theirs: str) -> float:
    if not theirs:
        return float(ours == theirs)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False))
    return sum(1 for _ in same) / len(theirs)


def _estimate(found: serving.seams.Estimate) -> Estimate:
    """As results hold it: an end that is not finite is none."""
    low, high = (end if math.isfinite(end) else None for end in (found.low, found.high))
    return Estimate(value=found.value, low=low, high=high)


_COMPARE: dict[Operation, Callable[[Pairs], Agreement | None]] = {
    "embeddings": _embeddings,
    "classify": _classify,
    "completions": _texts,
    "chat": _texts,
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
