"""What generation means, written for clarity: full sorts, exact fractions, one token at a time."""

import math
import zlib
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.seams import Sampling, TokenLogprob, TokenRequest

VOCABULARY = 48
NEVER_GENERATED = 47


def sampling(**changes: Any) -> Sampling:
    """Greedy without log-probabilities, but for ``changes``."""
    defaults: dict[str, Any] = {
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "seed": 0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "logprobs": None,
    }
    return Sampling(**{**defaults, **changes})


def request(
    prompt: Sequence[int],
    max_new_tokens: int = 4,
    stop_tokens: Sequence[int] = (),
    logprobs_from: int | None = None,
    **changes: Any,
) -> TokenRequest:
    """A request with ``sampling(**changes)``."""
    return TokenRequest(
        tuple(prompt), max_new_tokens, frozenset(stop_tokens), sampling(**changes), logprobs_from
    )


def logits_after(tokens: Sequence[int]) -> NDArray[np.float32]:
    """The logits that follow exactly these tokens, in this order."""
    seed = zlib.crc32(repr([int(token) for token in tokens]).encode())
    logits = np.random.default_rng(seed).standard_normal(VOCABULARY, dtype=np.float32) * 2
    logits[NEVER_GENERATED] = -1_000
    return logits


def ranked(values: Sequence[float]) -> list[int]:
    """Ids from the most to the least probable; of equals, the lowest id comes first."""
    return sorted(range(len(values)), key=lambda token: (-values[token], token))


def probabilities(logits: Sequence[float], how: Sampling) -> dict[int, Fraction]:
    """Probability of each token that may be drawn, in order of id."""
    kept = ranked(logits)
    if how.top_k:
        kept = kept[: how.top_k]
    weights = {
        token: Fraction(math.exp((logits[token] - logits[kept[0]]) / how.temperature))
        for token in kept
    }
    total = sum(weights.values())
    nucleus, reached = [], Fraction(0)
    for token in sorted(kept, key=lambda token: (-weights[token], token)):
        nucleus.append(token)
        reached += weights[token]
        if how.top_p < 1 and reached >= Fraction(how.top_p) * total:
            break
    nucleus = [token for token in nucleus if weights[token] >= Fraction(how.min_p)]
    total = sum(weights[token] for token in nucleus)
    return {token: weights[token] / total for token in sorted(nucleus)}


def choose(
    logits: NDArray[np.float32],
    how: Sampling,
    counts: Counter[int],
    index: int,
    prompt: Sequence[int] = (),
    is_raced: bool = False,
) -> int:
    """The token that follows, as the ``index``-th new one of its sequence."""
    scores = logits.copy()
    for token, addend in how.logit_bias:
        scores[token] = float(scores[token]) + addend
    for token in {*prompt, *counts} if how.repetition_penalty != 1 else ():
        score = float(scores[token])
        is_negative = score < 0
        scores[token] = (
            score * how.repetition_penalty if is_negative else score / how.repetition_penalty
        )
    for token, count in counts.items():
        scores[token] -= count * how.frequency_penalty + how.presence_penalty
    if how.temperature == 0:
        return ranked(scores.tolist())[0]
    if is_raced:
        numbers = np.random.Generator(np.random.Philox(key=how.seed, counter=index * 2**128))
        times = numbers.standard_exponential(len(logits))
        every = probabilities(scores.tolist(), how)
        shares = {token: share for token, share in every.items() if share}
        return min(shares, key=lambda token: Fraction(float(times[token])) / shares[token])
    generator = np.random.Generator(np.random.Philox(key=how.seed))
    uniform = Fraction(float(generator.random(index + 1)[index]))
    reached = Fraction(0)
    for token, probability in probabilities(scores.tolist(), how).items():
        reached += probability
        if reached > uniform:
            return token
    raise AssertionError("the probabilities do not add up to 1")


def continuation(asked: TokenRequest, is_raced: bool = False) -> list[int]:
    """All new tokens of a request, alone."""
    tokens = list(asked.prompt)
    counts: Counter[int] = Counter()
    for index in range(asked.max_new_tokens):
        logits = logits_after(tokens)
        tokens.append(choose(logits, asked.sampling, counts, index, asked.prompt, is_raced))
        counts[tokens[-1]] += 1
        if tokens[-1] in asked.stop_tokens:
            break
    return tokens[len(asked.prompt) :]


def logprob(logits: NDArray[np.float32], token: int, num_top: int) -> TokenLogprob:
    """Log-softmax, by the sum of exactly rounded exponentials."""
    values = [float(value) for value in logits]
    largest = max(values)
    normalizer = largest + math.log(math.fsum(math.exp(value - largest) for value in values))
    top = ranked(values)[:num_top]
    return TokenLogprob(
        token, values[token] - normalizer, tuple((i, values[i] - normalizer) for i in top)
    )


def text_logprobs(text: Sequence[int], first: int, num_top: int) -> list[TokenLogprob]:
    """Log-probabilities of the tokens of a text from position ``first`` on."""
    positions = range(first, len(text))
    return [logprob(logits_after(text[:i]), text[i], num_top) for i in positions]


def assert_same_logprobs(
    found: Sequence[TokenLogprob | None], expected: Sequence[TokenLogprob]
) -> None:
    """Compare ids exactly and log-probabilities to the rounding of float64."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one is not None
        assert one.token == other.token
        assert one.logprob == pytest.approx(other.logprob, abs=1e-13)
        assert [token for token, _ in one.top] == [token for token, _ in other.top]
        for (_, a), (_, b) in zip(one.top, other.top, strict=True):
            assert a == pytest.approx(b, abs=1e-13)
