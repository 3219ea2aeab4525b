"""A draft changes when tokens come, and none of them."""

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.cores import UnsharedCores
from serving.errors import InvalidField, RequestError
from serving.generator.drafting import Drafter, judged
from serving.generator.scheduling import PromptBudget
from serving.generator.sequence_job import SequenceJob
from serving.generator.stepper import Stepper
from serving.seams import DraftCounts, GeneratedToken, Segment
from tests.unit.generator import reference
from tests.unit.generator.fake_decoder import POISON, FakeDecoder
from tests.unit.generator.fickle_decoder import FickleDecoder
from tests.unit.generator.reference import request
from tests.unit.generator.test_sampling import OnlyEven
from tests.unit.generator.test_stepper import ids, run

BUDGET = PromptBudget(busy=3, idle=8)


def build(
    length: int | None = 3, num_slots: int = 4, percent: int = 30, budget: PromptBudget = BUDGET
) -> Stepper:
    drafter = Drafter(FickleDecoder(num_slots, percent=percent), length)
    return Stepper(FakeDecoder(num_slots), UnsharedCores(2), budget, drafter)


def fake(decoder: object) -> FakeDecoder:
    assert isinstance(decoder, FakeDecoder)
    return decoder


def draft_of(stepper: Stepper) -> FakeDecoder:
    assert stepper.drafter is not None
    return fake(stepper.drafter.decoder)


def counts_of(stepper: Stepper) -> DraftCounts:
    assert stepper.drafter is not None
    return stepper.drafter.counts


def test_a_draft_that_agrees_saves_steps() -> None:
    asked = request([1, 2], 13)
    stepper = build(length=3, percent=0)
    [tokens] = run(stepper, asked)
    assert ids(tokens) == reference.continuation(asked)
    # The prompt's token, then three times three proposed ones and one more.
    assert len(fake(stepper.decoder).steps) == 4
    assert counts_of(stepper) == DraftCounts(accepted=9, rejected=0, unread=0)


def test_a_draft_that_never_agrees_costs_no_token() -> None:
    asked = request([1, 2], 13)
    stepper = build(length=3, percent=100)
    [tokens] = run(stepper, asked)
    assert ids(tokens) == reference.continuation(asked)
    assert counts_of(stepper).accepted == 0
    assert len(fake(stepper.decoder).steps) == 13


def test_streams_get_as_many_as_they_have_room_for() -> None:
    asked = [request([1], 2), request([2], 3), request([3], 9)]
    stepper = build(length=4, percent=0)
    events = run(stepper, *asked)
    assert [ids(tokens) for tokens in events] == [reference.continuation(one) for one in asked]
    checked = fake(stepper.decoder).steps[1]
    assert [len(segment.token_ids) for segment in checked] == [1, 2, 5]
    assert [segment.num_logits for segment in checked] == [1, 2, 5]


def test_what_follows_the_end_of_a_text_is_not_read() -> None:
    free = reference.continuation(request([1, 2], 9))
    stop = next(i for i in range(2, 8) if free[i] not in free[:i])
    asked = request([1, 2], 9, stop_tokens=[free[stop]])
    stepper = build(length=8, percent=0)
    [tokens] = run(stepper, asked)
    assert ids(tokens) == free[: stop + 1]
    assert [token.finish for token in tokens] == [None] * stop + ["stop"]
    # Nor is anything proposed after it.
    assert counts_of(stepper) == DraftCounts(accepted=stop, rejected=0, unread=0)


def test_a_long_prompt_is_caught_up_with_in_pieces() -> None:
    """So that others wait no longer for a step than the budget says."""
    long, short = request(range(34), 25), request([7], 60)
    stepper = build(length=2, percent=0, budget=PromptBudget(busy=5, idle=8))
    events = run(stepper, long, short)
    assert [ids(tokens) for tokens in events] == [reference.continuation(r) for r in (long, short)]
    pieces = [segment for step in draft_of(stepper).steps for segment in step]
    assert max(len(segment.token_ids) for segment in pieces) <= 6
    assert counts_of(stepper).accepted > 40  # two thirds of the short one are 39


def test_a_slot_whose_beginning_is_the_same_is_gone_on_with() -> None:
    stepper = build(num_slots=1, percent=0)
    first = request(range(30), 8)
    [tokens] = run(stepper, first)
    chat = [*first.prompt, *ids(tokens), 3, 1]
    draft_of(stepper).steps.clear()
    [answer] = run(stepper, request(chat, 8))
    assert ids(answer) == reference.continuation(request(chat, 8))
    assert sum(len(s.token_ids) for step in draft_of(stepper).steps for s in step) < 20


def test_a_draft_that_fails_is_done_without() -> None:
    stepper = build()
    draft_of(stepper).failures = [RuntimeError("a kernel")]
    first, second = request([1, 2], 9), request([3, 4], 9)
    [tokens] = run(stepper, first)
    assert ids(tokens) == reference.continuation(first)
    assert counts_of(stepper) == DraftCounts(0, 0, 0)
    [tokens] = run(stepper, second)
    assert ids(tokens) == reference.continuation(second)
    assert counts_of(stepper).accepted > 0


class Poisoner(FakeDecoder):
    """Proposes what no text has."""

    def step(self, segments: Sequence[Segment]) -> NDArray[np.float32]:
        rows = super().step(segments)
        rows[:] = 0
        rows[:, POISON] = 9
        return rows


def test_a_proposed_token_that_breaks_the_model_breaks_no_text() -> None:
    """Its logits are never read, whether they are NaN or the step with it fails."""
    asked = request([1, 2], 9)
    stepper = Stepper(FakeDecoder(2), UnsharedCores(1), BUDGET, Drafter(Poisoner(2), 3))
    [tokens] = run(stepper, asked)
    assert ids(tokens) == reference.continuation(asked)
    assert counts_of(stepper).rejected > 0
    # The first step with proposals raises; without them it does not.
    stepper = Stepper(FakeDecoder(2), UnsharedCores(1), BUDGET, Drafter(Poisoner(2), 3))
    job = SequenceJob(asked, is_drafted=True)
    stepper.add(job)
    events = stepper.step()
    fake(stepper.decoder).failures = [RuntimeError("a kernel")]
    while not stepper.is_idle:
        events += stepper.step()
    found = [event for _, event in events if isinstance(event, GeneratedToken)]
    assert ids(found) == reference.continuation(asked)
    assert stepper.broken is None


def test_a_grammar_holds_for_what_is_proposed() -> None:
    held = request([1, 2], 12, temperature=0.7, seed=4)
    held = replace(held, sampling=replace(held.sampling, grammar=OnlyEven()))
    [expected] = run(build(percent=100), held)  # whose draft is of no use
    stepper = build(length=3, percent=0)
    [tokens] = run(stepper, held)
    assert ids(tokens) == ids(expected)
    assert all(token % 2 == 0 for token in ids(tokens))
    assert counts_of(stepper) == DraftCounts(accepted=8, rejected=0, unread=0)


def test_a_bias_that_is_refused_ends_its_sequence_alone() -> None:
    stepper = build()
    events: list[tuple[SequenceJob, GeneratedToken | RequestError]] = []
    refused = request([1, 2], 5, logit_bias=((reference.VOCABULARY, 1.0),))
    bad = SequenceJob(refused, is_drafted=True)
    good = SequenceJob(request([1, 2], 5), is_drafted=True)
    stepper.add(bad)
    stepper.add(good)
    while not stepper.is_idle:
        events += stepper.step()
    assert [isinstance(event, InvalidField) for job, event in events if job is bad] == [True]
    of_good = [e for job, e in events if job is good and isinstance(e, GeneratedToken)]
    assert ids(of_good) == reference.continuation(good.request)


@pytest.mark.parametrize("length", [1, 2, 5, None])
def test_a_seed_gives_the_same_text_at_any_length(length: int | None) -> None:
    chance = random.Random(length)
    asked = [
        request([1, 2, seed], 20, temperature=chance.uniform(0.3, 1.5), seed=seed)
        for seed in range(12)
    ]
    stepper = build(length=length)
    texts = [ids(tokens) for tokens in run(stepper, *asked)]
    assert texts == [reference.continuation(one, is_raced=True) for one in asked]


def test_judging() -> None:
    assert judged([1, 2, 3], [1, 2, 3, 4]) == DraftCounts(3, 0, 0)
    assert judged([1, 2, 3], [1, 5]) == DraftCounts(1, 1, 1)
    assert judged([1, 2, 3], [4]) == DraftCounts(0, 1, 2)
    assert judged([1, 2, 3], [1]) == DraftCounts(1, 0, 2)
    assert judged([], [4]) == DraftCounts(0, 0, 0)
    assert DraftCounts(3, 1, 9).acceptance == 0.75
    assert DraftCounts(0, 0, 0).acceptance is None
