"""The length of a draft follows from what is measured."""

import numpy as np
import pytest

from serving.generator.draft_length import (
    FIRST_ACCEPTANCE,
    LOOK_AGAIN,
    MOST_TOKENS,
    DraftLength,
    expected_tokens,
    interpolated,
)
from serving.seams import DraftCounts


def settle(
    draft_s: float, check_s: float, per_row_s: float, acceptance: float, streams: int = 1
) -> list[int]:
    """Let it choose for as many rounds as it takes, on a machine with such times."""
    length = DraftLength()
    chosen = []
    for _ in range(5 * LOOK_AGAIN):
        chosen.append(length.choose(streams))
        seconds = check_s + per_row_s * streams * chosen[-1]
        length.learn(streams, chosen[-1], draft_s * chosen[-1], seconds)
        accepted = round(1_000 * acceptance)
        length.judge(DraftCounts(accepted, 1_000 - accepted, 0))
    return chosen


def most_common(chosen: list[int]) -> int:
    return int(np.bincount(chosen[LOOK_AGAIN:]).argmax())


def best_by_hand(draft_s: float, check_s: float, per_row_s: float, acceptance: float) -> int:
    """The same by the closed form of the expectation."""

    def tokens_per_s(k: int) -> float:
        expected = (1 - acceptance ** (k + 1)) / (1 - acceptance)
        return expected / (k * draft_s + check_s + k * per_row_s)

    return max(range(MOST_TOKENS + 1), key=tokens_per_s)


@pytest.mark.parametrize("acceptance", [0.3, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("draft_s", [0.001, 0.01, 0.03])
def test_it_settles_at_what_gives_the_most_tokens(draft_s: float, acceptance: float) -> None:
    expected = best_by_hand(draft_s, 0.05, 0.002, acceptance)
    assert most_common(settle(draft_s, 0.05, 0.002, acceptance)) == expected


def test_where_it_does_not_pay_it_is_off() -> None:
    # Eight streams, and each row costs as much as a step of its own.
    chosen = settle(0.02, 0.05, 0.05, 0.8, streams=8)
    assert most_common(chosen) == 0
    # It looks again now and then, and each time later.
    looked = np.flatnonzero(chosen)[1:] + 1
    assert list(looked) == [LOOK_AGAIN, 2 * LOOK_AGAIN, 4 * LOOK_AGAIN]


def test_it_begins_with_a_step_without_a_draft() -> None:
    length = DraftLength()
    assert length.choose(1) == 0
    assert length.acceptance == FIRST_ACCEPTANCE
    length.learn(1, 0, 0.0, 0.05)
    assert length.choose(1) == 1  # and never more than twice what was tried
    length.learn(1, 1, 0.001, 0.05)
    assert length.choose(1) == 2
    assert length.choose(8) == 0


def test_a_fixed_length_is_fixed() -> None:
    length = DraftLength(3)
    length.learn(1, 3, 9.0, 9.0)
    length.judge(DraftCounts(0, 100, 0))
    assert {length.choose(streams) for streams in (1, 8)} == {3}


def test_acceptance_follows_the_latest_texts() -> None:
    length = DraftLength()
    length.judge(DraftCounts(2_000, 0, 0))
    assert length.acceptance > 0.98
    length.judge(DraftCounts(0, 2_000, 0))
    assert length.acceptance < 0.02


def test_expected_tokens_are_those_of_a_geometric_series() -> None:
    random = np.random.default_rng(0)
    runs = (random.random((200_000, 4)) < 0.7).cumprod(1).sum(1) + 1
    assert expected_tokens(0.7, 4) == pytest.approx(runs.mean(), abs=0.01)
    assert expected_tokens(0.7, 4) == pytest.approx((1 - 0.7**5) / 0.3)
    assert expected_tokens(1.0, 4) == 5


def test_between_known_values_lies_a_straight_line() -> None:
    known = {1: 10.0, 5: 30.0}
    assert [interpolated(known, place) for place in (0, 1, 2, 5, 8)] == [10, 10, 15, 30, 30]
