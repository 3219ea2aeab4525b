"""Heads in numpy, against their formulas in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import TypeAdapter

from serving.heads import activate, normalize, pool
from serving.seams import Activation, Head, Logits, PerToken, Pooled, Pooling

LENGTHS = (5, 1, 3)
HIDDEN = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
MASK = (np.arange(5) < np.array(LENGTHS)[:, None]).astype(np.int64)

FORMULAS: dict[Pooling, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "mean": lambda tokens: tokens.mean(axis=0),
    "cls": lambda tokens: tokens[0],
    "last": lambda tokens: tokens[-1],
    "max": lambda tokens: tokens.max(axis=0),
}


@pytest.mark.parametrize("pooling", FORMULAS)
def test_padding_takes_part_in_no_pooling(pooling: Pooling) -> None:
    rows = pool(Pooled(pooling=pooling), HIDDEN, MASK)
    expected = np.stack(
        [
            FORMULAS[pooling](hidden[:length].astype(np.float64))
            for hidden, length in zip(HIDDEN, LENGTHS, strict=True)
        ]
    )
    assert rows.dtype == np.float32
    # Sums of five float32 numbers of about 1.
    np.testing.assert_allclose(rows, expected, atol=1e-6)


def test_padding_of_tokens_is_zero() -> None:
    rows = pool(PerToken(), HIDDEN, MASK)
    np.testing.assert_array_equal(rows, HIDDEN * MASK[:, :, None])


def test_logits_pass() -> None:
    logits = HIDDEN[:, 0]
    np.testing.assert_array_equal(pool(Logits(), logits, MASK), logits)


def test_vectors_get_length_one_and_zero_stays() -> None:
    rows = normalize(np.array([[3, 4], [0, 0]], np.float32))
    np.testing.assert_allclose(rows, np.array([[0.6, 0.8], [0, 0]]), atol=1e-7)


@pytest.mark.parametrize(
    ("activation", "formula"),
    [
        ("identity", lambda x: x),
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x))),
        ("softmax", lambda x: np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)),
    ],
)
def test_activations_follow_their_formulas(activation: Activation, formula) -> None:
    logits: NDArray[np.float32] = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    # One rounding to float32.
    np.testing.assert_allclose(
        activate(logits, activation), formula(logits.astype(np.float64)), rtol=1e-6
    )


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_huge_logits_give_no_nan(activation: Activation) -> None:
    scores = activate(np.array([[1e30, -1e30]], np.float32), activation)
    np.testing.assert_array_equal(scores, [[1, 0]])


@pytest.mark.parametrize("head", [Pooled(pooling="last", normalize=False), Logits(), PerToken()])
def test_heads_survive_json(head: Head) -> None:
    adapter: TypeAdapter[Head] = TypeAdapter(Head)
    assert adapter.validate_json(head.model_dump_json()) == head
