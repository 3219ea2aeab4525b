"""Which sequence does what in the next step. No clock, no threads, no logits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from serving.seams import Segment, TokenRequest

MIN_REUSED_TOKENS = 16
"""Fewer cached tokens are not worth losing the rest of what a slot holds."""


MIN_SHARE = 16
"""Prompt tokens of a sequence in a step, if it gets any and has as many."""


@dataclass(frozen=True, slots=True)
class PromptBudget:
    """Most prompt tokens of one step, of all sequences together; each at least 1.

    Attributes:
        busy: While other sequences decode: each of them waits for the whole step.
        idle: While none does.
    """

    busy: int
    idle: int


@dataclass(slots=True, eq=False)
class TokenSequence:
    """One sequence on its way through a slot.

    ``num_cached < len(tokens)`` always: a step takes tokens from there on. Once the prompt is
    cached, the newest token is the only one that is not.

    Attributes:
        request: What it shall become.
        tokens: Its prompt, then what was generated.
        slot: Its place in the cache; None before it has one.
        num_cached: Leading tokens whose keys and values are in the slot.
        num_reused: Those of them that were there when it came.
    """

    request: TokenRequest
    tokens: list[int] = field(init=False)
    slot: int | None = None
    num_cached: int = 0
    num_reused: int = 0

    def __post_init__(self) -> None:
        self.tokens = list(self.request.prompt)

    @property
    def is_decoding(self) -> bool:
        """Whether its whole prompt is cached."""
        return self.num_cached >= len(self.request.prompt)


class Schedule:
    """Sequences that wait, sequences that run, and what the free slots still hold.

    Sequences get slots in the order in which they were added, and no slot has two. One whose
    beginning another is just computing lets those behind it pass, until it can share that.

    Args:
        num_slots: Places in the cache, at least 1.
        budget: Prompt tokens of one step.
        share: Gives a slot, the second, what another holds of its first tokens, before the next
            step; None where the cache cannot. See ``SharesPrefixes``.
    """

    def __init__(
        self,
        num_slots: int,
        budget: PromptBudget,
        share: Callable[[int, int, int], None] | None = None,
    ) -> None:
        self._budget, self._share, self._num_slots = budget, share, num_slots
        self._waiting: deque[TokenSequence] = deque()
        self._running: list[TokenSequence] = []
        self._free: dict[int, list[int]] = {slot: [] for slot in range(num_slots)}

    @property
    def is_empty(self) -> bool:
        """Whether no sequence runs or waits."""
        return not self._running and not self._waiting

    def add(self, sequence: TokenSequence) -> None:
        """Let a new sequence wait for a slot."""
        self._waiting.append(sequence)

    def plan(self) -> list[tuple[TokenSequence, Segment]]:
        """Give free slots to waiting sequences and say what each does next; see ``plan_step``.

        Before the next call, each of these sequences has either been advanced by its segment
        (``num_cached``, and ``tokens`` if it has a new one) or been removed.
        """
        num_passed = 0
        for sequence in tuple(islice(self._waiting, 2 * self._num_slots)):
            # Each takes a look at what all others hold: so many that stay are enough.
            if not self._free or num_passed == self._num_slots:
                break
            reusable = sequence.request.prompt[: _first_row(sequence)]
            if self._is_being_computed(reusable):
                num_passed += 1
            else:
                self._waiting.remove(sequence)
                self._seat(sequence, reusable)
        return plan_step(self._running, self._budget)

    def _seat(self, sequence: TokenSequence, reusable: Sequence[int]) -> None:
        sequence.slot, sequence.num_reused = choose_slot(self._free, reusable)
        self._share_more(sequence, reusable)
        sequence.num_cached = sequence.num_reused
        del self._free[sequence.slot]
        self._running.append(sequence)

    def _is_being_computed(self, reusable: Sequence[int]) -> bool:
        """Whether a prompt that runs now will soon have more of a text than anybody has by now."""
        if self._share is None:
            return False
        prompts = [other for other in self._running if not other.is_decoding]
        coming = max((num_common(s.request.prompt, reusable) for s in prompts), default=0)
        if coming < MIN_REUSED_TOKENS:
            return False
        held = [*self._free.values(), *(s.tokens[: s.num_cached] for s in self._running)]
        there = max(num_common(tokens, reusable) for tokens in held)
        return coming - there >= MIN_REUSED_TOKENS

    def _share_more(self, sequence: TokenSequence, reusable: Sequence[int]) -> None:
        """Begin with what a running sequence has of the same text, if no free slot has as much."""
        if self._share is None or not self._running:
            return
        common = {
            other: num_common(other.tokens[: other.num_cached], reusable) for other in self._running
        }
        best = max(common, key=lambda other: common[other])
        if common[best] >= MIN_REUSED_TOKENS and common[best] > sequence.num_reused:
            sequence.slot, sequence.num_reused = spare_slot(self._free), common[best]
            assert best.slot is not None
            self._share(best.slot, sequence.slot, sequence.num_reused)

    def remove(self, sequence: TokenSequence, is_cache_valid: bool = True) -> None:
        """End a sequence that was added; its slot keeps its tokens if they are valid."""
        if sequence.slot is None:
            self._waiting.remove(sequence)
            return
        self._running.remove(sequence)
        held = sequence.tokens[: sequence.num_cached] if is_cache_valid else []
        self._free[sequence.slot] = held


def choose_slot(free: Mapping[int, Sequence[int]], reusable: Sequence[int]) -> tuple[int, int]:
    """Choose the free slot that holds the most of the tokens that may be skipped.

    If none does, ``spare_slot``.

    Args:
        free: Tokens that each free slot holds, the slot that became free last at the end; at least
            one slot.
        reusable: The beginning of a prompt, up to the first token whose logits are wanted.

    Returns:
        The slot, and how many tokens to skip: either 0 or at least ``MIN_REUSED_TOKENS``.
    """
    common = {slot: num_common(held, reusable) for slot, held in free.items()}
    best = max(free, key=lambda slot: common[slot])
    if common[best] >= MIN_REUSED_TOKENS:
        return best, common[best]
    return spare_slot(free), 0


def spare_slot(free: Mapping[int, Sequence[int]]) -> int:
    """Choose an empty slot, else the one that has been free the longest.

    A chat that goes on soon finds its beginning.

    Args:
        free: As of ``choose_slot``.
    """
    empty = [slot for slot, held in free.items() if not held]
    # The lowest, since slots that decode together are cheapest side by side.
    return min(empty) if empty else next(iter(free))


def plan_step(
    running: Sequence[TokenSequence], budget: PromptBudget
) -> list[tuple[TokenSequence, Segment]]:
    """Say what each sequence does in the next step; those left out wait for a later one.

    Every decoding sequence feeds its newest token. The prompt tokens of the budget go to the
    others as ``share_budget`` says.

    Args:
        running: Sequences with a slot, in order of arrival.
        budget: Most prompt tokens of the step.
    """
    prompts = [sequence for sequence in running if not sequence.is_decoding]
    limit = budget.idle if len(prompts) == len(running) else budget.busy
    num_tokens = {sequence: 1 for sequence in running if sequence.is_decoding}
    num_tokens |= share_budget(prompts, limit)
    return [(s, _segment(s, num_tokens[s])) for s in running if s in num_tokens]


def share_budget(prompts: Sequence[TokenSequence], budget: int) -> dict[TokenSequence, int]:
    """Divide a step's prompt tokens, first among the prompts of which the least was computed.

    So a short prompt does not wait for the end of a long one that came before. No prompt gets less
    than ``MIN_SHARE`` while there are as many: every segment costs calls of its own.

    Args:
        prompts: Sequences whose prompts are not cached yet, in order of arrival.
        budget: At least 1.

    Returns:
        Tokens of each that gets any; together the budget, or all that is left of the prompts.
    """
    shares: dict[TokenSequence, int] = {}
    while budget:
        hungry = [s for s in prompts if shares.get(s, 0) < _num_missing(s)]
        if not hungry:
            break
        # Python's sort is stable: who came first is first among equals.
        hungry.sort(key=lambda s: s.num_cached - s.num_reused)
        fair = max(MIN_SHARE, budget // len(hungry))
        for sequence in hungry:
            got = shares.get(sequence, 0)
            number = min(fair, budget, _num_missing(sequence) - got)
            if number:
                shares[sequence] = got + number
                budget -= number
    return shares


def _num_missing(sequence: TokenSequence) -> int:
    return len(sequence.tokens) - sequence.num_cached


def _segment(sequence: TokenSequence, num_tokens: int) -> Segment:
    assert sequence.slot is not None
    start, end = sequence.num_cached, sequence.num_cached + num_tokens
    num_logits = max(end - max(start, _first_row(sequence)), 0)
    return Segment(sequence.slot, start, sequence.tokens[start:end], num_logits)


def _first_row(sequence: TokenSequence) -> int:
    """Position of the first token whose logits are wanted."""
    newest, first = len(sequence.tokens) - 1, sequence.request.logprobs_from
    return newest if first is None else min(newest, first - 1)


def num_common(held: Sequence[int], wanted: Sequence[int]) -> int:
    """How many leading tokens two texts have in common."""
    pairs = enumerate(zip(held, wanted, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(held), len(wanted)))
