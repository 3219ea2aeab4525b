"""Properties of the schedule, whatever arrives and leaves when."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.generator.scheduling import (
    MIN_REUSED_TOKENS,
    MIN_SHARE,
    PromptBudget,
    Schedule,
    TokenSequence,
    choose_slot,
    plan_step,
)
from serving.seams import Segment
from tests.unit.generator.reference import request

FIRST_NEW_TOKEN = 1_000
"""New tokens are counted from here, so that each is unlike any other."""


@dataclass(frozen=True, eq=False)
class Guest:
    """A sequence that arrives before a step; ``leaves`` steps later it is cancelled."""

    arrives: int
    prompt: tuple[int, ...]
    max_new_tokens: int
    logprobs_from: int | None
    leaves: int | None


# Prompts are pieces of two texts, so that many of them begin alike.
PROMPTS = st.builds(
    lambda text, shared, own: tuple(range(text, text + shared)) + tuple(own),
    st.sampled_from([100, 200]),
    st.integers(0, 60),
    st.lists(st.integers(1, 3), min_size=1, max_size=5),
)
GUESTS = st.lists(
    st.builds(
        Guest,
        st.integers(0, 30),
        PROMPTS,
        st.integers(1, 12),
        st.none() | st.integers(1, 70),
        st.none() | st.integers(0, 20),
    ),
    min_size=1,
    max_size=14,
)
BUDGETS = st.builds(PromptBudget, busy=st.integers(1, 40), idle=st.integers(1, 80))


def num_common(a: Sequence[int], b: Sequence[int]) -> int:
    return max(n for n in range(min(len(a), len(b)) + 1) if list(a[:n]) == list(b[:n]))


class Hotel:
    """Drives a schedule as an engine does, and checks every step against what the cache holds."""

    def __init__(self, num_slots: int, budget: PromptBudget, shares: bool = False) -> None:
        self.num_slots, self.budget, self.shares = num_slots, budget, shares
        self.schedule = Schedule(num_slots, budget, self.share if shares else None)
        self.num_shared = 0
        self.cache: list[list[int]] = [[] for _ in range(num_slots)]
        self.present: list[TokenSequence] = []
        self.admitted: list[TokenSequence] = []
        self.passed: list[TokenSequence] = []
        self.ended: list[TokenSequence] = []
        self.num_computed: dict[TokenSequence, int] = {}
        self.num_rows: dict[TokenSequence, int] = {}
        self.new_tokens = count(FIRST_NEW_TOKEN)

    def share(self, source: int, target: int, num_tokens: int) -> None:
        assert len(self.cache[source]) >= num_tokens >= MIN_REUSED_TOKENS
        self.cache[target] = self.cache[source][:num_tokens]
        self.num_shared += 1

    def arrive(self, guest: Guest) -> TokenSequence:
        sequence = TokenSequence(
            request(guest.prompt, guest.max_new_tokens, logprobs_from=guest.logprobs_from)
        )
        self.schedule.add(sequence)
        self.present.append(sequence)
        return sequence

    def leave(self, sequence: TokenSequence) -> None:
        if sequence in self.present:
            self.present.remove(sequence)
            self.schedule.remove(sequence)

    def step(self) -> None:
        was_decoding = [s for s in self.present if s.is_decoding]
        shares = self.schedule.plan()
        for sequence in self.present:
            if sequence.slot is not None and sequence not in self.admitted:
                self.admitted.append(sequence)
        self.check_slots()
        self.check_budget(shares, was_decoding)
        for sequence, segment in shares:
            self.take(sequence, segment)

    def check_slots(self) -> None:
        running = [s for s in self.present if s.slot is not None]
        waiting = [s for s in self.present if s.slot is None]
        slots = [s.slot for s in running]
        assert len(set(slots)) == len(slots)
        assert set(slots) <= set(range(self.num_slots))
        if len(running) < self.num_slots:
            assert all(map(self.is_being_computed, waiting[: self.num_slots]))
        self.passed += [s for s in waiting if self.is_being_computed(s)]
        # First come, first served: who waits came after all who run, or once let them pass.
        kept = [s for s in self.present if s in running or s not in self.passed]
        assert kept == running + [s for s in waiting if s in kept]

    def is_being_computed(self, sequence: TokenSequence) -> bool:
        """Whether a prompt that runs will have enough more of the sequence's to wait for it."""
        first, prompt = sequence.request.logprobs_from, sequence.request.prompt
        reusable = prompt[: min(len(prompt), first or len(prompt)) - 1]
        return self.shares and any(
            num_common(other.request.prompt, reusable)
            >= num_common(other.tokens[: other.num_cached], reusable) + MIN_REUSED_TOKENS
            for other in self.present
            if other.slot is not None and not other.is_decoding
        )

    def check_budget(
        self,
        shares: Sequence[tuple[TokenSequence, Segment]],
        was_decoding: Sequence[TokenSequence],
    ) -> None:
        in_step = [sequence for sequence, _ in shares]
        assert len(set(in_step)) == len(in_step)
        assert set(was_decoding) <= set(in_step)
        prompts = {s: len(g.token_ids) for s, g in shares if s not in was_decoding}
        left = [s for s in self.present if s.slot is not None and s not in was_decoding]
        remaining = [len(s.tokens) - s.num_cached for s in left]
        limit = self.budget.busy if was_decoding else self.budget.idle
        assert sum(prompts.values()) == min(limit, sum(remaining))
        # Whoever is left out, or cut off, is not further behind than one who got more.
        done = {s: self.num_computed.get(s, 0) for s in left}
        for poor, missing in zip(left, remaining, strict=True):
            if prompts.get(poor, 0) < min(MIN_SHARE, missing):
                assert all(done[rich] <= done[poor] for rich in prompts if rich is not poor)

    def take(self, sequence: TokenSequence, segment: Segment) -> None:
        """Execute a segment: nothing is skipped, nothing computed twice."""
        assert segment.slot == sequence.slot
        assert segment.start == sequence.num_cached
        cache = self.cache[segment.slot]
        assert cache[: segment.start] == sequence.tokens[: segment.start]
        end = segment.start + len(segment.token_ids)
        assert list(segment.token_ids) == sequence.tokens[segment.start : end] != []
        cache[segment.start :] = segment.token_ids
        self.num_computed[sequence] = self.num_computed.get(sequence, 0) + len(segment.token_ids)
        is_complete = end == len(sequence.tokens)
        first, length = sequence.request.logprobs_from, len(sequence.request.prompt)
        wanted = {len(sequence.tokens) - 1}
        if first is not None:
            wanted |= set(range(first - 1, length))
        rows = range(end - segment.num_logits, end)
        assert set(rows) == wanted & set(range(segment.start, end))
        self.num_rows[sequence] = self.num_rows.get(sequence, 0) + len(rows)
        sequence.num_cached = end
        if is_complete:
            sequence.tokens.append(next(self.new_tokens))
            num_new = len(sequence.tokens) - len(sequence.request.prompt)
            if num_new == sequence.request.max_new_tokens:
                self.ended.append(sequence)
                self.leave(sequence)
                # All but the last token went through the decoder or were there before, once each.
                computed = self.num_computed[sequence]
                assert computed + sequence.num_reused == len(sequence.tokens) - 1
                scored = max(length - (first or length), 0)
                assert self.num_rows[sequence] == num_new + scored


@given(GUESTS, st.integers(1, 5), BUDGETS, st.booleans())
def test_every_sequence_is_computed_once_and_ends_in_time(
    guests: list[Guest], num_slots: int, budget: PromptBudget, shares: bool
) -> None:
    hotel = Hotel(num_slots, budget, shares)
    arrived: dict[Guest, TokenSequence] = {}
    departures: dict[int, list[TokenSequence]] = {}
    chunk = min(budget.busy, budget.idle)
    bound = max(g.arrives for g in guests) + sum(
        len(g.prompt) // chunk + 1 + g.max_new_tokens for g in guests
    )
    for step in range(bound + 1):
        for guest in guests:
            if guest.arrives == step:
                sequence = arrived[guest] = hotel.arrive(guest)
                if guest.leaves is not None:
                    departures.setdefault(step + guest.leaves, []).append(sequence)
        for sequence in departures.pop(step, []):
            hotel.leave(sequence)
        if not hotel.schedule.is_empty:
            hotel.step()
    assert hotel.schedule.is_empty
    assert not hotel.present
    stayed = [g for g in arrived if g.leaves is None]
    assert all(arrived[g] in hotel.ended for g in stayed)


@given(GUESTS, st.integers(1, 5), BUDGETS)
def test_sequences_get_their_slots_in_order_of_arrival(
    guests: list[Guest], num_slots: int, budget: PromptBudget
) -> None:
    hotel = Hotel(num_slots, budget)
    arrived = [hotel.arrive(guest) for guest in guests]
    while not hotel.schedule.is_empty:
        hotel.step()
    assert hotel.admitted == arrived


@given(st.dictionaries(st.integers(0, 9), PROMPTS, min_size=1, max_size=5), PROMPTS)
def test_a_slot_is_chosen_for_the_longest_prefix_else_the_lowest_empty_else_the_oldest(
    free: dict[int, tuple[int, ...]], reusable: tuple[int, ...]
) -> None:
    slot, num_reused = choose_slot(free, reusable)
    assert free[slot][:num_reused] == reusable[:num_reused]
    assert num_reused == 0 or num_reused >= MIN_REUSED_TOKENS
    usable = {
        slot: next(n for n in range(len(reusable), -1, -1) if held[:n] == reusable[:n])
        for slot, held in free.items()
    }
    longest = max(usable.values())
    if longest >= MIN_REUSED_TOKENS:
        assert num_reused == longest
        assert usable[slot] == longest
    else:
        empty = [slot for slot, held in free.items() if not held]
        assert (slot, num_reused) == (min(empty, default=next(iter(free))), 0)


@pytest.mark.parametrize(
    ("free", "prompt", "expected"),
    [
        ({2: [], 1: []}, range(30), (1, 0)),
        ({0: [], 1: list(range(30))}, range(40), (1, 30)),
        ({0: [], 1: list(range(30))}, range(30), (1, 29)),
        ({0: [], 1: list(range(90))}, range(30), (1, 29)),
        ({0: [], 1: list(range(15))}, range(30), (0, 0)),
        ({0: [], 1: list(range(16))}, range(30), (1, 16)),
        ({0: list(range(20)), 1: list(range(25))}, range(30), (1, 25)),
        ({0: [], 1: [9, *range(1, 30)]}, range(30), (0, 0)),
        ({0: [5], 1: []}, [5], (1, 0)),
        ({2: [5], 0: [6], 1: [7]}, range(30), (2, 0)),
    ],
)
def test_small_examples_of_reuse(
    free: dict[int, list[int]], prompt: Sequence[int], expected: tuple[int, int]
) -> None:
    assert choose_slot(free, list(prompt)[:-1]) == expected


def test_a_chat_that_goes_on_finds_its_beginning_after_others_came_and_went() -> None:
    schedule = Schedule(2, PromptBudget(busy=32, idle=64))

    def num_reused(prompt: list[int]) -> int:
        sequence = TokenSequence(request(prompt))
        schedule.add(sequence)
        schedule.plan()
        sequence.num_cached = len(prompt)
        schedule.remove(sequence)
        return sequence.num_reused

    chat = list(range(100, 120))
    assert num_reused(chat) == 0
    assert num_reused([1] * 20) == 0
    assert num_reused([*chat, 5]) == 20
    # Takes the slot that was free the longest, not the chat's.
    assert num_reused([2] * 20) == 0
    assert num_reused([*chat, 5, 6]) == 21


def test_what_a_cancelled_or_failed_sequence_leaves_in_its_slot() -> None:
    schedule = Schedule(1, PromptBudget(busy=32, idle=20))
    prompt = range(100)
    for is_cache_valid, num_reused in ((True, 0), (False, 20), (True, 0)):
        sequence = TokenSequence(request(prompt))
        schedule.add(sequence)
        [(_, segment)] = schedule.plan()
        assert sequence.num_reused == segment.start == num_reused
        sequence.num_cached += len(segment.token_ids)
        schedule.remove(sequence, is_cache_valid)


def test_what_a_running_sequence_computes_is_computed_once() -> None:
    """Those that begin alike wait until they can share it, and let others pass."""
    shared: list[tuple[int, int, int]] = []
    schedule = Schedule(4, PromptBudget(busy=32, idle=64), lambda *what: shared.append(what))
    first, second, other, third = (
        TokenSequence(request(prompt, 9))
        for prompt in (range(100), [*range(90), 7], [5, *range(90)], [*range(200), 8])
    )
    for sequence in (first, second, other, third):
        schedule.add(sequence)
    steps = []
    for _ in range(4):
        planned = schedule.plan()
        for sequence, segment in planned:
            sequence.num_cached += len(segment.token_ids)
        steps.append([sequence for sequence, _ in planned])
    assert steps[0] == [first, other]
    assert second not in steps[1] + steps[2]
    assert {second, third} <= {*steps[3]}
    assert shared == [(0, 2, 90), (0, 3, 100)]
    assert [s.num_reused for s in (first, second, other, third)] == [0, 90, 0, 100]


def test_equal_prompts_are_computed_once() -> None:
    """As ``n`` asks for."""
    shared: list[tuple[int, int, int]] = []
    schedule = Schedule(4, PromptBudget(busy=32, idle=64), lambda *what: shared.append(what))
    choices = [TokenSequence(request(range(50), 9)) for _ in range(4)]
    for sequence in choices:
        schedule.add(sequence)
    num_computed = 0
    for _ in range(3):
        for sequence, segment in schedule.plan():
            sequence.num_cached += len(segment.token_ids)
            num_computed += len(segment.token_ids)
            if segment.num_logits:
                sequence.tokens.append(1)
    assert num_computed == 50 + 2 + 3 * 2
    assert shared == [(0, slot, 49) for slot in (1, 2, 3)]


def test_who_waited_for_a_prompt_that_failed_computes_it() -> None:
    schedule = Schedule(4, PromptBudget(busy=8, idle=8), lambda *what: None)
    first, second = (TokenSequence(request(range(50), 9)) for _ in range(2))
    schedule.add(first)
    schedule.add(second)
    assert [sequence for sequence, _ in schedule.plan()] == [first]
    schedule.remove(first, is_cache_valid=False)
    assert [sequence for sequence, _ in schedule.plan()] == [second]
    assert second.num_reused == 0


def test_a_free_slot_that_holds_as_much_is_taken_as_it_is() -> None:
    shared: list[tuple[int, int, int]] = []
    schedule = Schedule(3, PromptBudget(busy=32, idle=64), lambda *what: shared.append(what))
    gone, running, late, later = (TokenSequence(request(range(60), 9)) for _ in range(4))
    for sequence in (gone, running):
        schedule.add(sequence)
        schedule.plan()
        sequence.num_cached = 60
    schedule.remove(gone)
    schedule.add(late)
    schedule.add(later)
    schedule.plan()
    assert (late.slot, late.num_reused) == (0, 59)
    assert (later.slot, later.num_reused) == (2, 59)
    assert shared == [(0, 1, 59), (1, 2, 59)]


def test_a_long_prompt_shares_its_steps_with_running_streams() -> None:
    schedule = Schedule(9, PromptBudget(busy=32, idle=256))
    for _ in range(8):
        schedule.add(TokenSequence(request([1], 1_000)))
    for sequence, segment in schedule.plan():
        sequence.num_cached += len(segment.token_ids)
        sequence.tokens.append(2)
    schedule.add(TokenSequence(request(range(1_000))))
    lengths = []
    while True:
        shares = schedule.plan()
        for sequence, segment in shares:
            sequence.num_cached += len(segment.token_ids)
            if segment.num_logits == 1:
                sequence.tokens.append(2)
        assert [segment.num_logits for _, segment in shares[:8]] == [1] * 8
        lengths.append(len(shares[8][1].token_ids))
        if shares[8][1].num_logits == 1:
            break
    assert lengths == [32] * 31 + [8]


@pytest.mark.parametrize(
    ("lengths", "cached", "budget", "expected"),
    [
        # A short prompt beside a long one that came before it.
        ([200, 20], [0, 0], 64, {0: 44, 1: 20}),
        # The long one is well under way: the newcomer comes first, and gets all that it needs.
        ([200, 20], [64, 0], 32, {1: 16, 0: 16}),
        ([200, 20], [64, 0], 64, {1: 20, 0: 44}),
        # As many as there is room for get a piece that is worth its call.
        ([90, 90, 90], [0, 0, 0], 32, {0: 16, 1: 16}),
        ([90, 90, 90], [16, 16, 0], 32, {2: 16, 0: 16}),
        ([5, 9], [0, 0], 8, {0: 5, 1: 3}),
    ],
)
def test_small_examples_of_sharing(
    lengths: list[int], cached: list[int], budget: int, expected: dict[int, int]
) -> None:
    running = [
        TokenSequence(request(range(length)), slot=slot, num_cached=num_cached)
        for slot, (length, num_cached) in enumerate(zip(lengths, cached, strict=True))
    ]
    shares = plan_step(running, PromptBudget(busy=1, idle=budget))
    assert {segment.slot: len(segment.token_ids) for _, segment in shares} == expected
