"""Properties of the split into batches, and of padding."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.replica.encoder.batching import (
    FORWARD_OVERHEAD_TOKENS,
    LENGTH_MULTIPLE,
    pad,
    split_by_length,
)

LENGTHS = st.lists(st.integers(1, 512), max_size=60)
LIMITS = st.integers(1, 2048)


def rounded(length: int) -> int:
    return length + -length % LENGTH_MULTIPLE


@given(LENGTHS, LIMITS)
def test_every_text_is_in_exactly_one_batch(lengths: list[int], limit: int) -> None:
    batches = split_by_length(lengths, limit)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(batches)


@given(LENGTHS, LIMITS)
def test_no_batch_exceeds_the_limit_but_a_single_long_text(lengths: list[int], limit: int) -> None:
    for batch in split_by_length(lengths, limit):
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or len(batch) * rounded(longest) <= limit


@given(LENGTHS, LIMITS)
def test_padding_costs_no_more_than_a_pass_of_its_own(lengths: list[int], limit: int) -> None:
    for batch in split_by_length(lengths, limit):
        longest = max(lengths[index] for index in batch)
        padding = sum(longest - lengths[index] for index in batch)
        assert padding <= FORWARD_OVERHEAD_TOKENS


@given(LENGTHS, LIMITS)
def test_a_batch_is_closed_only_for_a_reason(lengths: list[int], limit: int) -> None:
    batches = split_by_length(lengths, limit)
    for batch, following in pairwise(batches):
        longest = max(lengths[index] for index in batch)
        grown = [*batch, following[0]]
        padding = sum(longest - lengths[index] for index in grown)
        assert len(grown) * rounded(longest) > limit or padding > FORWARD_OVERHEAD_TOKENS


@pytest.mark.parametrize(
    ("lengths", "limit", "expected"),
    [
        ([], 10, []),
        ([99], 10, [[0]]),
        ([5, 5, 5, 5], 16, [[0, 1], [2, 3]]),
        ([2, 9, 3, 9], 32, [[1, 3], [2, 0]]),
        ([10, 300], 1024, [[1], [0]]),
        ([70, 6, 70], 1024, [[0, 2, 1]]),
        ([70, 5, 70], 1024, [[0, 2], [1]]),
    ],
)
def test_small_examples(lengths: list[int], limit: int, expected: list[list[int]]) -> None:
    assert split_by_length(lengths, limit) == expected


@given(
    st.lists(st.lists(st.integers(0, 30_000), min_size=1, max_size=20), min_size=1, max_size=8),
    st.integers(20, 30),
)
def test_padding_is_on_the_right_and_masked(token_ids: list[list[int]], max_tokens: int) -> None:
    batch = pad(token_ids, max_tokens)
    width = min(rounded(max(map(len, token_ids))), max_tokens)
    assert batch.input_ids.shape == batch.attention_mask.shape == (len(token_ids), width)
    assert batch.input_ids.dtype == batch.attention_mask.dtype == np.int64
    for ids, row, mask in zip(token_ids, batch.input_ids, batch.attention_mask, strict=True):
        assert row[: len(ids)].tolist() == ids
        assert mask.tolist() == [1] * len(ids) + [0] * (len(row) - len(ids))
