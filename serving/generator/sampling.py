"""How the next token of one sequence is chosen from its logits.

Logits are compared in float32, as they come; probabilities are computed in float64. Of tokens of
equal probability, the one with the lowest id counts as the most probable.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.errors import InternalError, InvalidField
from serving.seams import Sampling, TokenLogprob

BLOCK = 256
"""Tokens summed at once where a draw looks for its place; faster than one running sum."""


class Sampler:
    """Chooses the tokens of one sequence, one after the other.

    The i-th token is drawn with the i-th number of a generator of its own (Philox, keyed by the
    seed), so it does not depend on what else the engine does.

    Args:
        sampling: How tokens are chosen.
        prompt: Token ids that the sequence begins with.
        is_raced: Draw as ``race`` does, so that one model mostly draws what another draws.
    """

    def __init__(
        self, sampling: Sampling, prompt: Sequence[int] = (), is_raced: bool = False
    ) -> None:
        self._sampling = sampling
        self._counts_tokens = bool(sampling.frequency_penalty or sampling.presence_penalty)
        self._counts: Counter[int] = Counter()
        self._has_seen = sampling.repetition_penalty != 1
        self._seen = np.unique(np.array(prompt if self._has_seen else (), np.intp))
        self._text = None if sampling.grammar is None else sampling.grammar.begin()
        self._is_raced, self._num_chosen = is_raced, 0
        key = sampling.seed & (2**128 - 1)
        self._uniform = np.random.Generator(np.random.Philox(key=key)).random

    def fork(self) -> Sampler:
        """Return another that chooses what this one would choose from the same logits.

        What it chooses changes nothing here. It reports no log-probabilities. Only races can be
        run twice.
        """
        assert self._is_raced or self._sampling.temperature == 0
        fork = copy(self)
        fork._sampling = replace(self._sampling, logprobs=None)
        fork._counts = self._counts.copy()
        fork._text = None if self._text is None else self._text.copy()
        return fork

    def choose(self, logits: NDArray[np.float32]) -> tuple[int, TokenLogprob | None]:
        """Choose the next token.

        Args:
            logits: float32 (vocabulary,); left as it is.

        Returns:
            The token, and its log-probability if the request asked for it.

        Raises:
            InternalError: Logits are NaN or infinite.
            InvalidField: ``logit_bias`` names a token that the model does not have, or the grammar
                takes too much work.
        """
        sampling = self._sampling
        scores = self._adjust(logits)
        if sampling.temperature == 0:
            token = int(scores.argmax())  # the first NaN, if there is one
            _check_finite(scores[token])
        else:
            _check_finite(scores.max())
            token = self._draw(scores)
        self._num_chosen += 1
        if self._counts_tokens:
            self._counts[token] += 1
        if self._has_seen:
            self._seen = np.union1d(self._seen, [token])
        if self._text is not None:
            self._text.advance(token)
        if sampling.logprobs is None:
            return token, None
        return token, log_probability(logits, token, sampling.logprobs)

    def _draw(self, scores: NDArray[np.float32]) -> int:
        if self._is_raced:
            return race(scores, self._sampling, self._num_chosen)
        return draw(scores, self._sampling, self._uniform())

    def _adjust(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        scores, sampling = logits, self._sampling
        if sampling.logit_bias:
            scores = add_bias(scores, sampling.logit_bias)
        if self._has_seen:
            scores = penalize_repetition(scores, self._seen, sampling.repetition_penalty)
        if self._counts_tokens:
            scores = penalize(scores, self._counts, sampling)
        if self._text is not None:
            _check_finite(scores.max())  # also of those that are left out
            scores = np.where(self._text.allowed(len(scores)), scores, np.float32(-math.inf))
        return scores


def add_bias(logits: NDArray[np.float32], bias: Sequence[tuple[int, float]]) -> NDArray[np.float32]:
    """Add to the logits of some tokens.

    Args:
        logits: float32 (vocabulary,); left as it is.
        bias: Pairs of id and addend, each id once.

    Raises:
        InvalidField: The model has no such token.
    """
    ids = np.array([token for token, _ in bias], np.intp)
    if ids.max() >= len(logits):
        raise InvalidField(
            f"logit_bias: the model has no token {ids.max()}; its ids are 0 … {len(logits) - 1}",
            param="logit_bias",
        )
    scores = logits.copy()
    scores[ids] += np.array([addend for _, addend in bias], np.float64)
    return scores


def penalize_repetition(
    logits: NDArray[np.float32], seen: NDArray[np.intp], penalty: float
) -> NDArray[np.float32]:
    """Divide logits above 0 by the penalty and multiply the others, as in CTRL (Keskar 2019).

    Args:
        logits: float32 (vocabulary,); left as it is.
        seen: Tokens that occurred, ascending, each once. A prompt may have some that a model reads
            and never writes.
        penalty: Above 0.
    """
    seen = seen[seen < len(logits)]
    scores = logits.copy()
    of_seen = scores[seen].astype(np.float64)
    scores[seen] = np.where(of_seen < 0, of_seen * penalty, of_seen / penalty)
    return scores


def penalize(
    logits: NDArray[np.float32], counts: Counter[int], sampling: Sampling
) -> NDArray[np.float32]:
    """Subtract from the logit of each token that was generated.

    ``logit - count * frequency_penalty - (count > 0) * presence_penalty``, as in OpenAI's API
    reference; tokens of the prompt do not count.

    Args:
        logits: float32 (vocabulary,); left as it is.
        counts: How often each token was generated.
        sampling: The penalties.
    """
    tokens = np.fromiter(counts.keys(), np.intp, len(counts))
    times = np.fromiter(counts.values(), np.float64, len(counts))
    scores = logits.copy()
    scores[tokens] -= times * sampling.frequency_penalty + sampling.presence_penalty
    return scores


def draw(scores: NDArray[np.float32], sampling: Sampling, uniform: float) -> int:
    """Choose a token: ``top_k``, temperature, ``top_p``, ``min_p``, then the inverse of the CDF.

    Args:
        scores: float32 (vocabulary,), the largest finite; left as they are.
        sampling: Temperature above 0.
        uniform: In [0, 1); the CDF runs over the kept tokens in order of their ids.
    """
    kept, weights = keep(scores, sampling)
    place = _inverse_cdf(weights, uniform)
    return place if kept is None else int(kept[place])


def race(scores: NDArray[np.float32], sampling: Sampling, place: int) -> int:
    """Choose a token: as ``draw``, but the one that comes first of all that are kept.

    Each token of each place has an exponential number, whatever the scores are, and takes that over
    its weight: so it is first with its probability. Two models with the same seed choose the same
    token with probability (1 - d) / (1 + d) at least, with d the total variation distance of what
    they would draw (Daliri, Musco and Suresh, Coupling without Communication and Drafter-Invariant
    Speculative Decoding, 2024); a draw from the CDF has no such bound.

    Args:
        scores: float32 (vocabulary,), the largest finite; left as they are.
        sampling: Temperature above 0, and the seed.
        place: How many tokens were chosen before.
    """
    kept, weights = keep(scores, sampling)
    key = sampling.seed & (2**128 - 1)
    numbers = np.random.Generator(np.random.Philox(key=key, counter=place << 128))
    times = numbers.standard_exponential(len(scores))
    if kept is not None:
        times = times[kept]
    # A weight may be 0, or so close that the time is beyond float64: either token comes last.
    with np.errstate(divide="ignore", over="ignore"):
        times /= weights
    first = int(times.argmin())
    return first if kept is None else int(kept[first])


def keep(
    scores: NDArray[np.float32], sampling: Sampling
) -> tuple[NDArray[np.intp] | None, NDArray[np.float64]]:
    """Leave the tokens that may be drawn, in order of their ids, with their weights, at most 1.

    Returns:
        Their ids, or None for all; likewise (tokens,) what their probabilities are proportional to.
    """
    kept = None
    if 0 < sampling.top_k < len(scores):
        kept = _largest(scores, sampling.top_k)
        scores = scores[kept]
    weights = scores.astype(np.float64)
    weights -= weights.max()
    with np.errstate(over="ignore"):  # to minus infinity, at temperatures next to 0
        weights /= sampling.temperature
    np.exp(weights, out=weights)
    if sampling.top_p < 1:
        nucleus = _nucleus(weights, sampling.top_p)
        kept = nucleus if kept is None else kept[nucleus]
        weights = weights[nucleus]
    if sampling.min_p > 0:
        likely = np.flatnonzero(weights >= sampling.min_p)  # the largest weight is 1
        kept = likely if kept is None else kept[likely]
        weights = weights[likely]
    return kept, weights


def log_probability(logits: NDArray[np.float32], token: int, num_top: int) -> TokenLogprob:
    """Log-softmax of the logits at one token and at the ``num_top`` most probable ones.

    Args:
        logits: float32 (vocabulary,), before bias, temperature and penalties.
        token: Whose log-probability.
        num_top: At least 0.

    Raises:
        InternalError: Logits are NaN or infinite.
    """
    largest = float(logits.max())
    _check_finite(largest)
    scores = logits.astype(np.float64)
    scores -= largest
    normalizer = largest + math.log(np.exp(scores, out=scores).sum())
    top: list[int] = []
    num_top = min(num_top, len(logits))
    if num_top:
        ids = _largest(logits, num_top)
        top = ids[np.argsort(-logits[ids], kind="stable")].tolist()
    return TokenLogprob(
        token,
        float(logits[token]) - normalizer,
        tuple((other, float(logits[other]) - normalizer) for other in top),
    )


def prompt_log_probabilities(
    rows: NDArray[np.float32], following: Sequence[int], num_top: int
) -> Iterator[TokenLogprob]:
    """Log-probability of the token that follows each row, one row at a time.

    Args:
        rows: float32 (at least as many as ``following``, vocabulary).
        following: Tokens.
        num_top: Most probable tokens to report beside each.

    Raises:
        InternalError: Logits are NaN or infinite.
    """
    for row, token in zip(rows, following, strict=False):
        yield log_probability(row, token, num_top)


def _check_finite(largest: float) -> None:
    if not math.isfinite(largest):
        raise InternalError(
            "the model gave logits that are NaN or infinite, so no next token could be chosen"
        )


def _largest(values: NDArray[np.floating[Any]], count: int) -> NDArray[np.intp]:
    """Indices, ascending, of the ``count`` largest of at least as many values."""
    smallest = np.partition(values, -count)[-count]
    above = np.flatnonzero(values > smallest)
    level = np.flatnonzero(values == smallest)[: count - len(above)]
    return np.sort(np.concatenate((above, level)))


def _nucleus(weights: NDArray[np.float64], top_p: float) -> NDArray[np.intp]:
    """Indices, ascending, of the fewest largest weights with ``top_p`` of the sum; at least one.

    The largest weight is 1. Only those above a floor are sorted; it sinks until they suffice.
    """
    wanted = top_p * weights.sum()
    for floor in (2.0**-4, 2.0**-8, 2.0**-16, 0.0):
        candidates = np.flatnonzero(weights >= floor)
        likely = weights[candidates]
        reached = np.cumsum(np.sort(likely)[::-1])
        if reached[-1] >= wanted:
            break
    count = min(int(np.searchsorted(reached, wanted)) + 1, len(candidates))
    return candidates[_largest(likely, count)]


def _inverse_cdf(weights: NDArray[np.float64], uniform: float) -> int:
    """First index at which the running sum exceeds ``uniform`` times the whole sum."""
    sums = np.cumsum(np.add.reduceat(weights, np.arange(0, len(weights), BLOCK)))
    target = uniform * sums[-1]
    block = int(np.searchsorted(sums, target, side="right"))
    below = sums[block - 1] if block else 0.0
    inside = weights[block * BLOCK : (block + 1) * BLOCK]
    place = int(np.searchsorted(np.cumsum(inside), target - below, side="right"))
    # Rounding may leave the running sum just below the block's: then it is its last token.
    return block * BLOCK + min(place, int(np.flatnonzero(inside)[-1]))
