"""How many tokens a draft should propose at once. No clock, no threads, no logits."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from statistics import median

from serving.seams import DraftCounts

MOST_TOKENS = 8
"""Of a draft whose length is measured: what follows is seldom read."""

KEPT_TIMES = 15
"""Of each kind, the latest; their median shrugs off a step that strangers held up."""

LOOK_AGAIN = 64
"""Every so many rounds another length is tried, since times and texts change."""

FIRST_ACCEPTANCE, FIRST_WEIGHT = 0.7, 16.0
"""What is believed of a draft before its first tokens were judged, and as if of how many."""

FORGETTING = 0.998
"""What a judged token still weighs after the next one: some 500 of them count."""


class DraftLength:
    """Learns what proposing and checking take, and how much of it is accepted.

    Args:
        fixed: Proposed always, whatever is learnt; None chooses 0 to ``MOST_TOKENS``.
    """

    def __init__(self, fixed: int | None = None) -> None:
        self._fixed = fixed
        self._accepted = FIRST_ACCEPTANCE * FIRST_WEIGHT
        self._judged = FIRST_WEIGHT
        self._of_size: defaultdict[int, _Times] = defaultdict(_Times)

    @property
    def acceptance(self) -> float:
        """Share of the latest judged tokens that were accepted, 0 … 1."""
        return self._accepted / self._judged

    def choose(self, num_sequences: int) -> int:
        """How many tokens to propose to each of so many sequences, at least one; 0 proposes none.

        The number that promises the most tokens a second, ``expected_tokens`` over the median
        times of proposing and checking. Where a number was not tried yet, its time is that of the
        numbers beside it.
        """
        if self._fixed is not None:
            return self._fixed
        times = self._of_size[_size(num_sequences)]
        return times.look_around(times.best(self.acceptance))

    def learn(self, num_sequences: int, length: int, draft_s: float, check_s: float) -> None:
        """Take the times of a round in which each sequence was proposed ``length`` tokens.

        Args:
            num_sequences: At least 1.
            length: 0 if nothing was proposed.
            draft_s: Seconds that proposing took.
            check_s: Seconds of the step that checked the tokens, and chose as many and one.
        """
        self._of_size[_size(num_sequences)].learn(length, draft_s, check_s)

    def judge(self, counts: DraftCounts) -> None:
        """Take what became of proposed tokens."""
        num_judged = counts.accepted + counts.rejected
        kept = FORGETTING**num_judged
        self._accepted = kept * self._accepted + counts.accepted
        self._judged = kept * self._judged + num_judged


def expected_tokens(acceptance: float, length: int) -> float:
    """Tokens that a round gives on average: (1 - a^(k+1)) / (1 - a), with each accepted alike.

    Leviathan, Kalman and Matias, Fast Inference from Transformers via Speculative Decoding (2023),
    equation 1.
    """
    return sum(acceptance**place for place in range(length + 1))


def interpolated(known: Mapping[int, float], place: int) -> float:
    """A value between the known ones beside it, on a straight line; beyond all, the outermost.

    Args:
        known: At least one.
        place: Where.
    """
    below = max((at for at in known if at <= place), default=min(known))
    above = min((at for at in known if at >= place), default=max(known))
    if below >= above:
        return known[below]
    share = (place - below) / (above - below)
    return known[below] + share * (known[above] - known[below])


class _Times:
    """Of rounds with about as many sequences."""

    def __init__(self) -> None:
        self._check_s: defaultdict[int, deque[float]] = defaultdict(_latest)
        self._draft_token_s = _latest()
        self._num_rounds = 0

    def learn(self, length: int, draft_s: float, check_s: float) -> None:
        self._check_s[length].append(check_s)
        if length:
            self._draft_token_s.append(draft_s / length)

    def best(self, acceptance: float) -> int:
        """The length with the most tokens a second; the next one up may be one not tried yet."""
        if not self._check_s:
            return 0
        check_s = {length: median(seconds) for length, seconds in self._check_s.items()}
        token_s = median(self._draft_token_s) if self._draft_token_s else 0.0
        longest = min(max(2 * max(check_s), 1), MOST_TOKENS)

        def tokens_per_s(length: int) -> float:
            cost = length * token_s + interpolated(check_s, length)
            return expected_tokens(acceptance, length) / cost

        return max(range(longest + 1), key=tokens_per_s)

    def look_around(self, best: int) -> int:
        """Now and then, a length beside the best one, or none at all.

        A draft that is off has to read all that it missed before it proposes anything, so it is
        looked at ever more seldom, at most ``LOOK_AGAIN`` times so seldom.
        """
        self._num_rounds += 1
        turn, is_usual = divmod(self._num_rounds, LOOK_AGAIN)
        if is_usual:
            return best
        if best == 0:
            return int(turn.bit_count() == 1 or turn % LOOK_AGAIN == 0)
        return (min(best + 1, MOST_TOKENS), max(best - 1, 0), 0)[turn % 3]


def _latest() -> deque[float]:
    return deque(maxlen=KEPT_TIMES)


def _size(num_sequences: int) -> int:
    """1, 2, 3 to 4, 5 to 8, … sequences are alike."""
    return (num_sequences - 1).bit_length()
