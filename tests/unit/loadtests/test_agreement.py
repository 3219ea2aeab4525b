"""Agreement with the reference from the answers of a test."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from loadtests.agreement import Pair, agreement, agreements, pair
from loadtests.plan import Operation
from loadtests.results import Agreement


def embedding(*values: float, as_text: bool = True) -> bytes:
    vector = np.array(values, "<f4")
    packed: Any = base64.b64encode(vector.tobytes()).decode() if as_text else list(values)
    return json.dumps({"data": [{"embedding": packed}]}).encode()


def label(name: str) -> bytes:
    return json.dumps({"data": [{"label": name}]}).encode()


def compared(operation: Operation, pairs: list[Pair]) -> Agreement | None:
    return agreement(operation, pairs, agreements(operation, pairs))


def test_answers_are_paired_by_round_and_index() -> None:
    ours = [{0: b"a", 1: b"b"}, {1: b"c"}]
    theirs = [{1: b"B", 2: b"x"}, {1: b"C"}]
    assert pair(ours, theirs) == {(0, 1): (b"b", b"B"), (1, 1): (b"c", b"C")}
    assert compared("chat", []) is None


def test_embeddings_agree_by_their_angle() -> None:
    pairs = [
        (embedding(3, 4), embedding(1, 0)),
        (embedding(0, 2, as_text=False), embedding(0, 1)),
        (b"not json", embedding(0, 1)),
        (embedding(0, 0), embedding(0, 1)),
        (embedding(1, 2, 3), embedding(0, 1)),
    ]
    found = compared("embeddings", pairs)
    assert found is not None
    assert (found.measure, found.pairs) == ("cosine", 2)
    assert found.estimate.value == pytest.approx(0.8)
    each = agreements("embeddings", pairs)
    np.testing.assert_allclose(each, [0.6, 1, np.nan, np.nan, np.nan], rtol=1e-6)


def test_classifications_agree_by_their_label() -> None:
    pairs = [(label("a"), label("a"))] * 3 + [(label("a"), label("b")), (b"{}", label("b"))]
    found = compared("classify", pairs)
    assert found is not None
    assert (found.measure, found.pairs, found.estimate.value) == ("same_label", 4, 0.75)
    assert found.estimate.low is not None
    assert 0.2 < found.estimate.low < 0.75


def test_texts_agree_when_they_are_the_same() -> None:
    pairs = [(b"one two", b"one two"), (b"one three", b"one two"), (b"", b""), (b"x", b"")]
    found = compared("completions", pairs)
    assert found is not None
    assert (found.measure, found.pairs, found.estimate.value) == ("same_text", 4, 0.5)
    assert found.common_prefix is not None
    assert found.common_prefix.value == pytest.approx((1 + 5 / 7 + 1 + 0) / 4)
