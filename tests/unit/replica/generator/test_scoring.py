"""Scores of given continuations: what is asked of the engine, limits, deadlines, errors."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from serving.errors import CannotScore, DeadlineExceeded, InternalError, InvalidField
from serving.replica.tokenizing import INLINE_CHARACTERS
from serving.seams import (
    NUM_TRACED,
)
from tests.unit.fakes.generator import logprob_of
from tests.unit.replica.generator.generating import (
    replica,
    score,
)


@pytest.mark.parametrize("parts", [((1, 2), (3, 4, 5)), ("\1\2", "\3\4\5")])
async def test_only_the_continuation_is_scored(parts: Any) -> None:
    one = replica()
    found = await one.backend.score(score(*parts))
    assert found == tuple(logprob_of(token, NUM_TRACED) for token in (3, 4, 5))
    assert one.engine.requests[0].prompt == (1, 2, 3, 4, 5)
    assert one.engine.requests[0].logprobs_from == 2
    assert one.engine.open == []
    assert one.value("input_tokens_total") == 5
    assert one.value("output_tokens_total") == 0


async def test_without_a_prompt_the_first_token_has_no_score() -> None:
    one = replica()
    found = await one.backend.score(score((), (3, 4)))
    assert found == (logprob_of(4, NUM_TRACED),)
    assert await one.backend.score(score((), (3,))) == ()
    assert len(one.engine.requests) == 1


async def test_as_many_tokens_as_fit_are_scored_and_no_more() -> None:
    one = replica(max_tokens=20)
    assert len(await one.backend.score(score((1,) * 8, (2,) * 12))) == 12
    with pytest.raises(InvalidField, match="21 tokens; 'smollm2' takes 20"):
        await one.backend.score(score((1,) * 8, (2,) * 13))
    assert len(one.engine.requests) == 1


@pytest.mark.parametrize(
    ("parts", "message"),
    [(((1,), ()), "no token"), (("a", ""), "no token"), (("a", (1,)), "both as texts")],
)
async def test_what_cannot_be_scored_is_refused(parts: Any, message: str) -> None:
    one = replica()
    with pytest.raises(InvalidField, match=message) as caught:
        await one.backend.score(score(*parts))
    assert caught.value.param == "continuation"
    assert one.value("in_flight_requests") == 0


async def test_an_engine_that_cannot_score_is_not_asked_to() -> None:
    one = replica()
    one.engine.can_score = False
    with pytest.raises(CannotScore, match="'smollm2' here cannot say how probable"):
        await one.backend.score(score((1,), (2,)))
    assert one.engine.requests == []


async def test_a_score_that_does_not_come_in_time_frees_its_place() -> None:
    one = replica()
    one.engine.hold()
    with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.01 s"):
        await one.backend.score(score((1,), (2,), timeout_s=0.01))
    assert one.engine.open == []
    assert one.value("in_flight_requests") == 0


async def test_a_score_that_fails_is_told_without_its_details() -> None:
    with pytest.raises(InternalError) as caught:
        await replica(ZeroDivisionError("secret")).backend.score(score((1,), (2,)))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("characters", "is_on_the_loop"), [(INLINE_CHARACTERS, True), (INLINE_CHARACTERS + 1, False)]
)
async def test_long_texts_are_tokenized_off_the_loop_to_be_scored(
    characters: int, is_on_the_loop: bool
) -> None:
    one = replica("a", max_tokens=100_000)
    await one.backend.score(score("x" * 9, "y" * (characters - 9)))
    [thread] = one.task.encoded_in
    assert (thread is threading.current_thread()) == is_on_the_loop
