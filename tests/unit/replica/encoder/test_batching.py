"""Properties of the split into batches."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.replica.encoder.batching import (
    FORWARD_OVERHEAD_TOKENS,
    ROUNDED_TO,
    split_by_cost,
)

LENGTHS = st.lists(st.integers(1, 512), max_size=60)
LIMITS = st.integers(1, 2048)


def rounded(length: int) -> int:
    return length + -length % ROUNDED_TO


@given(LENGTHS, LIMITS)
def test_every_text_is_in_exactly_one_batch(lengths: list[int], limit: int) -> None:
    batches = split_by_cost(lengths, limit)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(batches)


@given(LENGTHS, LIMITS)
def test_no_batch_exceeds_the_limit_but_a_single_long_text(lengths: list[int], limit: int) -> None:
    for batch in split_by_cost(lengths, limit):
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or len(batch) * rounded(longest) <= limit


@given(LENGTHS, LIMITS)
def test_padding_costs_no_more_than_a_pass_of_its_own(lengths: list[int], limit: int) -> None:
    for batch in split_by_cost(lengths, limit):
        longest = max(lengths[index] for index in batch)
        padding = sum(longest - lengths[index] for index in batch)
        assert padding <= FORWARD_OVERHEAD_TOKENS


@given(LENGTHS, LIMITS)
def test_a_batch_is_closed_only_for_a_reason(lengths: list[int], limit: int) -> None:
    batches = split_by_cost(lengths, limit)
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
    assert split_by_cost(lengths, limit) == expected
