"""Whatever company a sequence has, its tokens are those of the reference."""

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.cores import UnsharedCores
from serving.errors import InputFails, InternalError, InvalidField, RequestError
from serving.generator.drafting import Drafter
from serving.generator.scheduling import PromptBudget
from serving.generator.sequence_job import SequenceJob
from serving.generator.stepper import Stepper
from serving.seams import GeneratedToken, Segment, TokenRequest
from tests.unit.fakes.rust import rust_panic
from tests.unit.generator import reference
from tests.unit.generator.fake_decoder import POISON, FakeDecoder
from tests.unit.generator.fickle_decoder import FickleDecoder
from tests.unit.generator.reference import assert_same_logprobs, request, text_logprobs

BUDGET = PromptBudget(busy=3, idle=8)


def build_stepper(
    num_slots: int = 4, budget: PromptBudget = BUDGET, drafter: Drafter | None = None
) -> Stepper:
    return Stepper(FakeDecoder(num_slots), UnsharedCores(2), budget, drafter)


def decoder_of(stepper: Stepper) -> FakeDecoder:
    assert isinstance(stepper.decoder, FakeDecoder)
    return stepper.decoder


def run(stepper: Stepper, *asked: TokenRequest) -> list[list[GeneratedToken]]:
    """Add requests at once and step until all of them have ended."""
    jobs = [SequenceJob(one, is_drafted=stepper.drafter is not None) for one in asked]
    for job in jobs:
        stepper.add(job)
    events: dict[SequenceJob, list[GeneratedToken]] = {job: [] for job in jobs}
    while not stepper.is_idle:
        for job, event in stepper.step():
            assert isinstance(event, GeneratedToken)
            events[job].append(event)
    return [events[job] for job in jobs]


def ids(tokens: list[GeneratedToken]) -> list[int]:
    return [token.token for token in tokens]


def random_request(chance: random.Random) -> TokenRequest:
    prompt = [*range(chance.randint(0, 30)), *chance.choices(range(40), k=chance.randint(1, 9))]
    is_greedy = chance.random() < 0.4
    return request(
        prompt,
        chance.randint(1, 12),
        chance.choices(range(40), k=chance.randint(0, 3)),
        logprobs_from=chance.randint(1, 30) if chance.random() < 0.2 else None,
        temperature=0.0 if is_greedy else chance.uniform(0.2, 2),
        top_p=chance.choice([1.0, 0.9, 0.5]),
        top_k=chance.choice([0, 0, 1, 10]),
        seed=chance.randrange(2**40),
        frequency_penalty=chance.choice([0.0, 0.5]),
        presence_penalty=chance.choice([0.0, -0.5]),
        min_p=chance.choice([0.0, 0.1]),
        repetition_penalty=chance.choice([1.0, 1.5]),
        logit_bias=chance.choice([(), ((5, 2.0), (9, -3.0))]),
        logprobs=chance.choice([None, 0, 2]),
    )


def test_a_bias_that_is_refused_ends_its_sequence_alone() -> None:
    stepper = build_stepper()
    bad = SequenceJob(request([1, 2], logit_bias=((reference.VOCABULARY, 1.0),)))
    good = SequenceJob(request([1, 2], 1))
    stepper.add(bad)
    stepper.add(good)
    events = dict(stepper.step())
    assert isinstance(events[bad], InvalidField)
    assert isinstance(events[good], GeneratedToken)
    assert stepper.is_idle
    assert stepper.broken is None


@pytest.mark.parametrize("is_drafted", [False, True])
@pytest.mark.parametrize("seed", range(25))
def test_the_same_tokens_alone_and_in_any_company(seed: int, is_drafted: bool) -> None:
    chance = random.Random(seed)
    num_slots, budget = chance.randint(1, 5), PromptBudget(chance.randint(1, 9), 12)
    drafter = None
    if is_drafted:
        drafter = Drafter(FickleDecoder(num_slots), chance.choice([None, 1, 4]))
    stepper = build_stepper(num_slots, budget, drafter)
    jobs = {
        SequenceJob(random_request(chance), is_drafted=is_drafted): chance.randint(0, 40)
        for _ in range(16)
    }
    leaves = {job: chance.randint(0, 60) for job in jobs if chance.random() < 0.3}
    events: dict[SequenceJob, list[GeneratedToken]] = {job: [] for job in jobs}
    for step in range(1_000):
        for job, arrives in jobs.items():
            if arrives == step:
                stepper.add(job)
            if leaves.get(job) == step:
                stepper.drop(job)
        if not stepper.is_idle:
            for job, event in stepper.step():
                assert isinstance(event, GeneratedToken)
                events[job].append(event)
    assert stepper.is_idle
    for job, tokens in events.items():
        expected = reference.continuation(job.request, is_drafted)
        if job in leaves:
            assert ids(tokens) == expected[: len(tokens)]
        else:
            assert ids(tokens) == expected
            assert tokens[-1].finish is not None
        assert all(token.finish is None for token in tokens[:-1])
        num_top = job.request.sampling.logprobs
        if num_top is None:
            assert all(token.logprob is None for token in tokens)
        else:
            prompt = job.request.prompt
            found = [token.logprob for token in tokens]
            assert_same_logprobs(
                found, text_logprobs([*prompt, *ids(tokens)], len(prompt), num_top)
            )
        first = job.request.logprobs_from
        for token in tokens if first is None else tokens[1:]:
            assert token.prompt == ()
        if first is not None and tokens:
            expected_prompt = text_logprobs(job.request.prompt, first, num_top or 0)
            assert_same_logprobs(tokens[0].prompt, expected_prompt)


def test_a_stop_token_is_the_last_and_is_reported() -> None:
    free = reference.continuation(request([1, 2], 8))
    stop = next(i for i in range(2, 8) if free[i] not in free[:i])
    [tokens] = run(build_stepper(), request([1, 2], 8, stop_tokens=[free[stop]]))
    assert ids(tokens) == free[: stop + 1]
    assert [token.finish for token in tokens] == [None] * stop + ["stop"]


def test_without_a_stop_token_the_length_ends_it() -> None:
    [tokens] = run(build_stepper(), request([1, 2], 8))
    assert [token.finish for token in tokens] == [None] * 7 + ["length"]


def test_a_stop_token_at_the_full_length_is_a_stop() -> None:
    free = reference.continuation(request([1, 2], 3))
    assert free[2] not in free[:2]
    [tokens] = run(build_stepper(), request([1, 2], 3, stop_tokens=[free[2]]))
    assert tokens[-1].finish == "stop"


def test_a_stop_token_of_the_prompt_stops_nothing() -> None:
    [tokens] = run(build_stepper(), request([1, 2], 3, stop_tokens=[1, 2]))
    assert len(tokens) == 3


def test_a_single_token_is_all_that_is_asked() -> None:
    [tokens] = run(build_stepper(), request([1, 2], 1))
    assert [token.finish for token in tokens] == ["length"]


@pytest.mark.parametrize(
    ("num_shared", "num_own", "num_reused"), [(30, 4, 30), (30, 0, 29), (16, 4, 16), (15, 4, 0)]
)
def test_a_shared_prefix_is_not_computed_again(
    num_shared: int, num_own: int, num_reused: int
) -> None:
    stepper = build_stepper()
    shared = list(range(num_shared))
    run(stepper, request([*shared, 40, 41, 42], 6))
    num_steps = len(decoder_of(stepper).steps)
    asked = request([*shared, *range(30, 30 + num_own)], 6)
    [tokens] = run(stepper, asked)
    assert ids(tokens) == reference.continuation(asked)
    assert {token.progress.cached_tokens for token in tokens} == {num_reused}
    assert decoder_of(stepper).steps[num_steps][0].start == num_reused


def test_the_next_turn_of_a_chat_reuses_the_answer_too() -> None:
    stepper = build_stepper()
    first = list(range(20))
    [answer] = run(stepper, request(first, 6))
    asked = request([*first, *ids(answer), 3, 4], 6)
    [tokens] = run(stepper, asked)
    assert ids(tokens) == reference.continuation(asked)
    # All but the answer's last token, which no step was fed.
    assert tokens[0].progress.cached_tokens == 25


@pytest.mark.parametrize(
    ("first", "num_reused"), [(1, 0), (16, 0), (17, 16), (25, 24), (29, 28), (30, 29), (99, 29)]
)
def test_what_stands_before_the_scored_tokens_is_not_computed_again(
    first: int, num_reused: int
) -> None:
    stepper = build_stepper()
    prompt = list(range(30))
    run(stepper, request(prompt))
    asked = request(prompt, logprobs_from=first, logprobs=2)
    [tokens] = run(stepper, asked)
    assert tokens[0].progress.cached_tokens == num_reused
    assert_same_logprobs(tokens[0].prompt, text_logprobs(prompt, first, 2))
    assert ids(tokens) == reference.continuation(asked)


def test_a_prompt_that_fills_its_slot_can_be_scored() -> None:
    stepper = build_stepper()
    prompt = [i % 40 for i in range(stepper.decoder.slot_tokens)]
    [[token]] = run(stepper, request(prompt, 0, logprobs_from=60, logprobs=2))
    assert token.finish == "length"
    assert_same_logprobs(token.prompt, text_logprobs(prompt, 60, 2))


def test_a_prompt_of_one_token_has_no_log_probabilities() -> None:
    [tokens] = run(build_stepper(), request([7], 2, logprobs_from=1))
    assert tokens[0].prompt == ()


def test_a_step_that_failed_once_is_taken_again_alone() -> None:
    stepper = build_stepper(num_slots=2, budget=PromptBudget(busy=64, idle=64))
    jobs = [SequenceJob(request([*range(20), own], 5)) for own in (30, 31, 32)]
    for job in jobs:
        stepper.add(job)
    decoder_of(stepper).failures = [ValueError("a kernel is broken")]
    tokens: dict[SequenceJob, list[int]] = {job: [] for job in jobs}
    while not stepper.is_idle:
        for job, event in stepper.step():
            assert isinstance(event, GeneratedToken)
            tokens[job].append(event.token)
    assert not decoder_of(stepper).failures
    for job in jobs:
        assert tokens[job] == reference.continuation(job.request)


BAD = reference.VOCABULARY + 1
"""A token that the decoder of these tests cannot take."""


def fail_on_bad(stepper: Stepper) -> None:
    take = stepper.decoder.step

    def step(segments: Sequence[Segment]) -> NDArray[np.float32]:
        if any(BAD in segment.token_ids for segment in segments):
            raise IndexError("index out of range in self")
        return take(segments)

    vars(stepper.decoder)["step"] = step


@pytest.mark.parametrize("num_prompt", [1, 30])
def test_a_sequence_that_the_decoder_fails_on_ends_alone(num_prompt: int) -> None:
    stepper = build_stepper(num_slots=3)
    run(stepper, request([1, 2], 1))
    fail_on_bad(stepper)
    bad = SequenceJob(request([*range(num_prompt), BAD], 6))
    good = [SequenceJob(request([*range(num_prompt), own], 6)) for own in (30, 31, 32)]
    for job in (good[0], bad, *good[1:]):
        stepper.add(job)
    events: dict[SequenceJob, list[GeneratedToken | RequestError]] = {
        job: [] for job in (bad, *good)
    }
    while not stepper.is_idle:
        for job, event in stepper.step():
            events[job].append(event)
    [error] = events[bad]
    assert isinstance(error, InputFails)
    assert error.status == 422
    assert stepper.broken is None
    for job in good:
        tokens = [event.token for event in events[job] if isinstance(event, GeneratedToken)]
        assert tokens == reference.continuation(job.request)


@pytest.mark.parametrize("is_nan", [True, False])
def test_a_decoder_that_fails_on_what_it_had_answered_is_broken(is_nan: bool) -> None:
    stepper = build_stepper()
    asked = request(range(12), 3)
    run(stepper, asked)
    take = stepper.decoder.step

    def step(segments: Sequence[Segment]) -> NDArray[np.float32]:
        logits = take(segments)
        if not is_nan:
            raise RuntimeError("a kernel is broken")
        return np.full_like(logits, np.nan)

    vars(stepper.decoder)["step"] = step
    jobs = [SequenceJob(asked) for _ in range(3)]
    for job in jobs:
        stepper.add(job)
    errors = [event for _ in range(20) if not stepper.is_idle for _, event in stepper.step()]
    assert [type(error) for error in errors] == [InternalError] * 3
    assert stepper.broken is not None
    assert ("NaN" if is_nan else "a kernel is broken") in stepper.broken
    assert stepper.is_idle
    vars(stepper.decoder)["step"] = take
    [tokens] = run(stepper, asked)
    assert ids(tokens) == reference.continuation(asked)
    assert stepper.broken is None


def test_what_a_failed_step_left_in_its_slots_is_not_reused() -> None:
    stepper = build_stepper(num_slots=1, budget=PromptBudget(busy=20, idle=20))
    asked = request(range(30), 5)
    stepper.add(SequenceJob(asked))
    assert stepper.step() == []
    decoder_of(stepper).failures = [ValueError("a kernel is broken")]
    [(_, error)] = stepper.step()
    assert isinstance(error, RequestError)
    assert "kernel is" not in error.message
    [tokens] = run(stepper, asked)
    assert tokens[0].progress.cached_tokens == 0
    assert ids(tokens) == reference.continuation(asked)


def test_a_decoder_that_answers_too_few_rows_fails_its_step() -> None:
    stepper = build_stepper()
    vars(stepper.decoder)["step"] = lambda segments: reference.logits_after([1])[None][:0]
    for _ in range(2):
        stepper.add(SequenceJob(request([1], 5)))
    assert [type(error) for _, error in stepper.step()] == [InternalError] * 2
    assert stepper.is_idle


@pytest.mark.parametrize("logprobs_from", [None, 1, 31])
def test_nan_ends_only_its_own_sequence(logprobs_from: int | None) -> None:
    stepper = build_stepper(budget=PromptBudget(busy=32, idle=256))
    run(stepper, request([1], 1))
    prompt = list(range(30))
    bad = SequenceJob(request([*prompt, POISON, 5], 6, logprobs_from=logprobs_from))
    good = [SequenceJob(request([*prompt, own], 6)) for own in (30, 31)]
    for job in (good[0], bad, good[1]):
        stepper.add(job)
    events: dict[SequenceJob, list[GeneratedToken | RequestError]] = {
        bad: [],
        good[0]: [],
        good[1]: [],
    }
    while not stepper.is_idle:
        for job, event in stepper.step():
            events[job].append(event)
    [error] = events[bad]
    assert isinstance(error, InputFails)
    assert "NaN" in error.message
    assert stepper.broken is None
    for job in good:
        tokens = [event.token for event in events[job] if isinstance(event, GeneratedToken)]
        assert tokens == reference.continuation(job.request)


@pytest.mark.parametrize("fault", [ZeroDivisionError(), rust_panic("a grammar is at fault")])
def test_a_fault_in_choosing_ends_its_sequence_alone(
    monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    stepper = build_stepper(budget=PromptBudget(busy=32, idle=256))
    bad, good = SequenceJob(request([1, 2], 4)), SequenceJob(request([3, 4], 4))
    for job in (bad, good):
        stepper.add(job)

    def fail(logits: NDArray[np.float32]) -> None:
        raise fault

    monkeypatch.setattr(bad.sampler, "choose", fail)
    events = dict(stepper.step())
    assert isinstance(events[bad], InternalError)
    assert isinstance(events[good], GeneratedToken)
    assert stepper.broken is None
    assert stepper.jobs == [good]


def test_what_nan_has_touched_is_not_reused() -> None:
    stepper = build_stepper(num_slots=1)
    stepper.add(SequenceJob(request([*range(30), POISON], 6)))
    while not stepper.is_idle:
        stepper.step()
    asked = request([*range(30), 33], 3)
    [tokens] = run(stepper, asked)
    assert tokens[0].progress.cached_tokens == 0
    assert ids(tokens) == reference.continuation(asked)


def test_progress_tells_where_the_time_went() -> None:
    stepper = build_stepper(num_slots=1)
    jobs = [SequenceJob(request(range(20), 5)) for _ in range(2)]
    for job in jobs:
        stepper.add(job)
    progress: dict[SequenceJob, list[tuple[float, float, float]]] = {job: [] for job in jobs}
    ended: dict[SequenceJob, float] = {}
    while not stepper.is_idle:
        for job, event in stepper.step():
            assert isinstance(event, GeneratedToken)
            p = event.progress
            progress[job].append((p.queue, p.prefill, p.decode))
            ended[job] = job.arrived + p.queue + p.prefill + p.decode
    for times in progress.values():
        assert len({(queue, prefill) for queue, prefill, _ in times}) == 1
        decode = [decode for _, _, decode in times]
        assert decode[0] == 0
        assert decode == sorted(set(decode))
        assert min(times[0][:2]) > 0
    # The second waited for the first to end, and its times say so.
    assert jobs[1].arrived + progress[jobs[1]][0][0] >= ended[jobs[0]]


def test_dropping_twice_or_after_the_end_does_nothing() -> None:
    stepper = build_stepper(num_slots=1)
    job, other = SequenceJob(request([1], 1)), SequenceJob(request([2], 2))
    stepper.drop(job)
    stepper.add(job)
    stepper.add(other)
    stepper.step()
    stepper.drop(job)
    assert not stepper.is_idle
    stepper.step()
    stepper.drop(other)
    stepper.drop(other)
    assert stepper.is_idle


def test_company_changes_neither_order_nor_number_of_tokens() -> None:
    stepper = build_stepper(num_slots=2)
    jobs = [SequenceJob(request([own], 3)) for own in range(5)]
    for job in jobs:
        stepper.add(job)
    ends = []
    counts: Counter[SequenceJob] = Counter()
    while not stepper.is_idle:
        for job, event in stepper.step():
            counts[job] += 1
            assert isinstance(event, GeneratedToken)
            if event.finish:
                ends.append(job)
    assert ends == jobs
    assert set(counts.values()) == {3}
