"""Tokens are drawn as the reference draws them, and as often as their probability says."""

import math
from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers.generation import logits_process

from serving.errors import InternalError, InvalidField
from serving.generator.sampling import (
    BLOCK,
    Sampler,
    draw,
    log_probability,
    penalize,
    penalize_repetition,
    prompt_log_probabilities,
)
from serving.seams import Sampling
from tests.unit.generator import reference
from tests.unit.generator.reference import assert_same_logprobs, sampling

Row = NDArray[np.float32]

SMOOTH = st.floats(-30, 30, width=32)
WITH_TIES = st.integers(-8, 8).map(lambda quarters: quarters / 4)
MASKED = st.just(-math.inf)
ROWS = st.one_of(
    st.lists(SMOOTH, min_size=1, max_size=60),
    st.lists(WITH_TIES, min_size=1, max_size=60),
    st.lists(WITH_TIES | MASKED, min_size=1, max_size=60).map(lambda row: [*row, 0.0]),
).map(lambda row: np.array(row, np.float32))
CHOICES = st.builds(
    sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]) | st.floats(0.01, 2),
    top_p=st.just(1.0) | st.floats(0.001, 1),
    top_k=st.just(0) | st.integers(1, 70),
    seed=st.integers(0, 2**63),
    frequency_penalty=st.sampled_from([0.0, 0.5, -2.0]),
    presence_penalty=st.sampled_from([0.0, 0.25, 2.0]),
    min_p=st.sampled_from([0.0, 0.0, 0.05, 0.5, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.3, 0.5, 2.0]),
    logit_bias=st.sampled_from([(), (), ((0, 1.5),), ((0, -100.0),)]),
)


def large_row(seed: int, spread: float = 4.0, vocabulary: int = 49_152) -> Row:
    return np.random.default_rng(seed).standard_normal(vocabulary, dtype=np.float32) * spread


def draw_many(row: Row, how: Sampling, num_draws: int) -> Counter[int]:
    """Draw with evenly spaced numbers: each token as often as its share of them."""
    return Counter(draw(row, how, (i + 0.5) / num_draws) for i in range(num_draws))


@given(ROWS, CHOICES, st.booleans())
def test_a_sequence_of_choices_is_the_reference_s(row: Row, how: Sampling, is_raced: bool) -> None:
    prompt = [0, len(row) - 1, 0]
    sampler, counts = Sampler(how, prompt, is_raced), Counter[int]()
    for index in range(4):
        token, logprob = sampler.choose(row)
        assert token == reference.choose(row, how, counts, index, prompt, is_raced)
        assert logprob is None
        counts[token] += 1


@given(ROWS, CHOICES, st.floats(0, 1, exclude_max=True))
def test_only_tokens_that_may_be_drawn_are(row: Row, how: Sampling, uniform: float) -> None:
    if how.temperature == 0:
        return
    assert reference.probabilities(row.tolist(), how)[draw(row, how, uniform)] > 0


@given(ROWS, CHOICES)
def test_logits_are_left_as_they_are(row: Row, how: Sampling) -> None:
    before = row.copy()
    sampler = Sampler(how)
    for _ in range(3):
        sampler.choose(row)
    assert np.array_equal(row, before)


@pytest.mark.parametrize("vocabulary", [1, BLOCK - 1, BLOCK, BLOCK + 1, 49_152])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 3.0, "top_p": 0.99},
        {"top_p": 0.9},
        {"top_p": 1e-6},
        {"top_k": 40},
        {"top_k": 40, "top_p": 0.5},
        {"top_k": 20_000, "top_p": 0.999},
    ],
)
def test_large_vocabularies(vocabulary: int, changes: dict[str, Any]) -> None:
    """Against sums of the whole, sorted vocabulary in float64."""
    how = sampling(**{"temperature": 1.0, **changes})
    row = large_row(1, vocabulary=vocabulary)
    order = np.lexsort((np.arange(vocabulary), -row))[: how.top_k or None]
    weights = np.exp((row[order].astype(np.float64) - row.max()) / how.temperature)
    if how.top_p < 1:
        count = int(np.argmax(np.cumsum(weights) >= how.top_p * weights.sum())) + 1
        order, weights = order[:count], weights[:count]
    by_id = np.argsort(order)
    order, cdf = order[by_id], np.cumsum(weights[by_id])
    for uniform in np.random.default_rng(2).random(40).tolist():
        assert draw(row, how, uniform) == order[np.argmax(cdf > uniform * cdf[-1])]


@pytest.mark.parametrize("is_raced", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 1.0},
        {"temperature": 0.6},
        {"temperature": 1.0, "top_k": 3},
        {"temperature": 1.0, "top_p": 0.8},
        {"temperature": 1.5, "top_k": 5, "top_p": 0.9},
        {"temperature": 1.0, "presence_penalty": 1.0},
    ],
)
def test_tokens_come_as_often_as_their_probability_over_many_seeds(
    changes: dict[str, Any], is_raced: bool
) -> None:
    """Pearson's statistic for the second token of 3,000 seeds; 40 is beyond 1e-6 for 7 degrees."""
    row = np.array([0.5, 2.0, -1.0, 1.0, 1.5, 0.0, 2.0, -0.5], np.float32)
    num_draws = 3_000
    expected: defaultdict[int, float] = defaultdict(float)
    observed: Counter[int] = Counter()
    for seed in range(num_draws):
        how = sampling(seed=seed, **changes)
        sampler = Sampler(how, is_raced=is_raced)
        first, _ = sampler.choose(row)
        second, _ = sampler.choose(row)
        observed[second] += 1
        scores = penalize(row, Counter([first]), how)
        for token, probability in reference.probabilities(scores.tolist(), how).items():
            expected[token] += float(probability)
    assert set(observed) <= set(expected)
    statistic = sum((observed[i] - times) ** 2 / times for i, times in expected.items())
    assert statistic < 40


@pytest.mark.parametrize("is_raced", [False, True])
def test_one_sequence_draws_as_often_as_probabilities_say(is_raced: bool) -> None:
    row = np.log(np.array([0.1, 0.2, 0.3, 0.4], np.float32))
    sampler = Sampler(sampling(temperature=1.0, seed=5), is_raced=is_raced)
    observed = Counter(sampler.choose(row)[0] for _ in range(4_000))
    statistic = sum((observed[i] - 400 * (i + 1)) ** 2 / (400 * (i + 1)) for i in range(4))
    assert statistic < 30


@pytest.mark.parametrize("seed", [0, 7, -1, -(2**63), 2**64 + 7, 2**63])
def test_the_seed_alone_decides_and_token_i_takes_number_i(seed: int) -> None:
    row = np.zeros(1_000, np.float32)
    key = seed & (2**128 - 1)
    numbers = np.random.Generator(np.random.Philox(key=key)).random(20)
    sampler = Sampler(sampling(temperature=1.0, seed=seed))
    assert [sampler.choose(row)[0] for _ in numbers] == [int(n * 1_000) for n in numbers]


def test_different_seeds_draw_differently() -> None:
    row = np.zeros(49_152, np.float32)
    tokens = {Sampler(sampling(temperature=1.0, seed=s)).choose(row)[0] for s in range(-50, 50)}
    assert len(tokens) > 95


@pytest.mark.parametrize(
    ("row", "expected"),
    [([1, 3, 3, 2], 1), ([0, 0, 0], 0), ([-math.inf, -5], 1), ([-3], 0)],
)
@pytest.mark.parametrize("changes", [{}, {"temperature": 1.0, "top_k": 1}])
def test_greedy_takes_the_lowest_of_equals(
    row: list[float], expected: int, changes: dict[str, Any]
) -> None:
    assert Sampler(sampling(**changes)).choose(np.array(row, np.float32))[0] == expected


@pytest.mark.parametrize(
    ("row", "changes", "kept"),
    [
        ([0, 0, 0, 0], {"top_p": 0.5}, {0, 1}),
        ([0, 0, 0, 0], {"top_p": 0.51}, {0, 1, 2}),
        ([0, 0, 0, 0], {"top_p": 0.25}, {0}),
        ([0, 0, 0, 0], {"top_p": 0.0}, {0}),
        ([1, 0, 1, 0], {"top_p": 1e-9}, {0}),
        ([1, 0, 1, 0], {"top_p": 1 - 1e-16}, {0, 1, 2, 3}),
        ([0, 1, 1, 1], {"top_k": 2}, {1, 2}),
        ([0, 1, 0, 1], {"top_k": 3}, {0, 1, 3}),
        ([0, 1, 0, 1], {"top_k": 9}, {0, 1, 2, 3}),
        ([0, 0, -1, -3], {"min_p": 0.3}, {0, 1, 2}),
        ([0, 0, -1, -3], {"min_p": 0.4}, {0, 1}),
        ([0, 1, 0, 1], {"min_p": 1.0}, {1, 3}),
        # The temperature comes before min_p: e^(-1/2) = 0.607.
        ([0, -1, -3], {"min_p": 0.6, "temperature": 2.0}, {0, 1}),
        # And top_p before it too: 0.665 of the probability is in the first token.
        ([0, -1, -2, -3], {"min_p": 0.3, "top_p": 0.6}, {0}),
        # top_p counts shares of what top_k kept: 1/2 each, not 1/4.
        ([0, 0, 0, 0], {"top_k": 2, "top_p": 0.5}, {0}),
        ([0, -math.inf, 0], {}, {0, 2}),
        ([0, -math.inf, 0], {"top_k": 3}, {0, 2}),
        ([0, -math.inf, 0], {"top_p": 0.9999}, {0, 2}),
    ],
)
def test_which_tokens_are_kept(row: list[float], changes: dict[str, Any], kept: set[int]) -> None:
    how = sampling(**{"temperature": 1.0, **changes})
    assert set(draw_many(np.array(row, np.float32), how, 400)) == kept


def test_rounding_never_leads_past_the_last_token() -> None:
    how = sampling(temperature=1.0)
    for seed in range(300):
        row = large_row(seed, vocabulary=BLOCK)
        row[-5:] = -math.inf
        assert draw(row, how, 1 - 2.0**-53) < BLOCK - 5


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-40, 1e-6])
def test_a_temperature_next_to_0_is_greedy(temperature: float) -> None:
    row = large_row(3)
    assert draw(row, sampling(temperature=temperature), 0.999) == row.argmax()


def test_equals_share_even_at_a_temperature_next_to_0() -> None:
    row = np.array([1, 5, -3e38, 5], np.float32)
    assert draw_many(row, sampling(temperature=5e-324), 10) == {1: 5, 3: 5}


def test_an_enormous_temperature_is_uniform() -> None:
    row = np.array([-3e38, 0, 3e38], np.float32)
    assert draw_many(row, sampling(temperature=1e308), 300) == {0: 100, 1: 100, 2: 100}


def test_the_ends_of_the_unit_interval() -> None:
    row = large_row(4)
    row[:300] = row[-300:] = -math.inf
    how = sampling(temperature=1.0)
    assert draw(row, how, 0.0) == 300
    assert draw(row, how, 1 - 2.0**-53) == 49_152 - 301


def test_penalties_follow_openai_s_formula() -> None:
    row = np.array([1, 1, 1, 1], np.float32)
    how = sampling(frequency_penalty=0.5, presence_penalty=0.25)
    assert penalize(row, Counter({1: 1, 3: 4}), how).tolist() == [1, 0.25, 1, -1.25]


def test_penalties_count_generated_tokens() -> None:
    row = np.array([0, 1, 0.75, 0.5], np.float32)
    sampler = Sampler(sampling(frequency_penalty=0.375))
    assert [sampler.choose(row)[0] for _ in range(6)] == [1, 2, 1, 3, 2, 1]


def scores_of_transformers(row: Row, text: list[int], how: Sampling) -> torch.Tensor:
    """What transformers' own processors make of a row in float64, in its own order."""
    processors: list[Any] = []
    if how.logit_bias:
        bias: list[Any] = [[[token], addend] for token, addend in how.logit_bias]
        processors.append(logits_process.SequenceBiasLogitsProcessor(bias))
    if how.repetition_penalty != 1:
        penalty = how.repetition_penalty
        processors.append(logits_process.RepetitionPenaltyLogitsProcessor(penalty))
    if how.temperature not in (0, 1):
        processors.append(logits_process.TemperatureLogitsWarper(how.temperature))
    if how.top_k:
        processors.append(logits_process.TopKLogitsWarper(how.top_k))
    if how.top_p < 1:
        processors.append(logits_process.TopPLogitsWarper(how.top_p))
    if how.min_p:
        processors.append(logits_process.MinPLogitsWarper(how.min_p))
    scores = torch.tensor(row.astype(np.float64))[None]
    ids = torch.tensor(text)[None]
    for process in processors:
        scores = process(ids, scores)
    return scores[0]


AS_TRANSFORMERS: list[dict[str, Any]] = [
    {"min_p": 0.1},
    {"min_p": 0.02, "temperature": 1.7},
    {"min_p": 0.2, "top_k": 40, "top_p": 0.9, "temperature": 0.7},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7, "temperature": 0.9},
    {"logit_bias": ((3, 4.0), (7, -100.0), (11, 0.5))},
    {"logit_bias": ((3, 4.0), (7, -2.0)), "repetition_penalty": 1.5, "min_p": 0.05, "top_p": 0.95},
]


@pytest.mark.parametrize("changes", AS_TRANSFORMERS)
def test_bias_repetition_and_min_p_are_those_of_transformers(changes: dict[str, Any]) -> None:
    """The same token for each of 400 seeds, by the inverse CDF of its probabilities.

    Our scores are float32 and its are float64; so close to a limit between two tokens (1e-6 of the
    probability, while a rounding moves it by 1e-7) either is right.
    """
    prompt = [1, 3, 5, 3]
    num_compared = 0
    for seed in range(400):
        row = large_row(seed, spread=2, vocabulary=64)
        how = sampling(**{"temperature": 1.0, **changes, "seed": seed})
        sampler = Sampler(how, prompt)
        uniforms = np.random.Generator(np.random.Philox(key=seed)).random(3)
        text = list(prompt)
        for uniform in uniforms.tolist():
            token, _ = sampler.choose(row)
            cdf = scores_of_transformers(row, text, how).softmax(-1).cumsum(-1).numpy()
            text.append(token)
            if np.abs(cdf - uniform).min() > 1e-6:
                assert token == np.searchsorted(cdf, uniform, side="right")
                num_compared += 1
    assert num_compared > 1_190


@pytest.mark.parametrize("changes", AS_TRANSFORMERS)
def test_greedy_is_that_of_transformers(changes: dict[str, Any]) -> None:
    for seed in range(50):
        row = large_row(seed, spread=2, vocabulary=64)
        how = sampling(**{**changes, "temperature": 0.0})
        sampler, text = Sampler(how, [1, 3]), [1, 3]
        for _ in range(4):
            text.append(sampler.choose(row)[0])
            scores = scores_of_transformers(row, text[:-1], how)
            assert scores[text[-1]] == scores.max()


def test_repetition_counts_prompt_and_continuation_once_each() -> None:
    row = np.array([2, -1, 3, 4], np.float32)
    assert penalize_repetition(row, np.array([0, 1, 3]), 2).tolist() == [1, -2, 3, 2]
    sampler = Sampler(sampling(repetition_penalty=2.0), [3, 3])
    # In the end [1, -1, 1.5, 2]: a token that comes again is not divided again.
    assert [sampler.choose(row)[0] for _ in range(4)] == [2, 0, 3, 3]


def test_a_prompt_may_have_tokens_that_the_model_never_writes() -> None:
    row = np.array([2, 1], np.float32)
    assert Sampler(sampling(repetition_penalty=4.0), [0, 5]).choose(row)[0] == 1


def test_a_bias_for_a_token_that_is_not_there_is_refused() -> None:
    row = np.zeros(4, np.float32)
    assert Sampler(sampling(logit_bias=((3, 1.0),))).choose(row)[0] == 3
    with pytest.raises(InvalidField, match=r"no token 4; its ids are 0 … 3"):
        Sampler(sampling(logit_bias=((0, 1.0), (4, 1.0)))).choose(row)


def test_logits_below_all_others_stay_so() -> None:
    row = np.array([0, -math.inf, -math.inf], np.float32)
    changes: dict[str, Any] = {"repetition_penalty": 2.0, "logit_bias": ((1, 100.0),)}
    assert Sampler(sampling(temperature=1.0, **changes), [2]).choose(row)[0] == 0


@given(ROWS, st.integers(0, 70), st.data())
def test_log_probabilities_are_the_log_softmax(row: Row, num_top: int, data: st.DataObject) -> None:
    token = data.draw(st.integers(0, len(row) - 1))
    found = log_probability(row, token, num_top)
    assert_same_logprobs([found], [reference.logprob(row, token, num_top)])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 1.7, "top_k": 5},
        {"frequency_penalty": 2.0},
        {"repetition_penalty": 1.5, "min_p": 0.1, "logit_bias": ((7, 9.0),)},
    ],
)
def test_log_probabilities_come_before_temperature_and_penalties(changes: dict[str, Any]) -> None:
    row = large_row(5, vocabulary=50)
    sampler = Sampler(sampling(logprobs=3, **changes))
    for _ in range(5):
        token, found = sampler.choose(row)
        assert found == log_probability(row, token, 3)


def test_log_probabilities_of_a_large_vocabulary_add_up_to_1() -> None:
    row = large_row(6) + np.float32(1e4)
    found = log_probability(row, 0, len(row))
    assert math.fsum(math.exp(p) for _, p in found.top) == pytest.approx(1, abs=1e-12)


def test_log_probabilities_of_a_prompt_are_those_of_its_next_tokens() -> None:
    rows = np.stack([large_row(seed, vocabulary=50) for seed in range(4)])
    found = list(prompt_log_probabilities(rows, [7, 8, 9], 2))
    assert found == [log_probability(rows[i], 7 + i, 2) for i in range(3)]


@pytest.mark.parametrize(
    "row",
    [[0, math.nan, 9], [math.nan] * 3, [0, math.inf, 9], [-math.inf] * 3, [math.inf, math.nan, 0]],
)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"frequency_penalty": 1.0},
        {"temperature": 1.0},
        {"temperature": 1.0, "top_k": 1},
        {"temperature": 1.0, "top_p": 0.5},
    ],
)
def test_logits_that_are_no_numbers_are_an_error(row: list[float], changes: dict[str, Any]) -> None:
    logits = np.array(row, np.float32)
    with pytest.raises(InternalError, match="NaN or infinite"):
        Sampler(sampling(**changes)).choose(logits)
    with pytest.raises(InternalError, match="NaN or infinite"):
        log_probability(logits, 0, 1)


class OnlyEven:
    """A grammar of tokens with even ids."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    def begin(self) -> "OnlyEven":
        return self

    def allowed(self, num_tokens: int) -> NDArray[np.bool_]:
        return np.arange(num_tokens) % 2 == 0

    def advance(self, token: int) -> None:
        self.taken.append(token)

    def copy(self) -> "OnlyEven":
        return OnlyEven()


class TestGrammar:
    @given(row=ROWS.filter(lambda row: np.isfinite(row[::2]).any()), how=CHOICES)
    def test_what_is_not_allowed_does_not_count(self, row: Row, how: Sampling) -> None:
        """As if its logits were minus infinite, after bias and penalties."""
        grammar = OnlyEven()
        held = Sampler(replace(how, grammar=grammar, logprobs=3))
        masked = row.copy()
        masked[1::2] = -math.inf
        free = Sampler(how)
        for _ in range(3):
            token, logprob = held.choose(row)
            assert token == free.choose(masked)[0]
            # Log-probabilities stay the model's own.
            assert logprob == log_probability(row, token, 3)
        assert len(grammar.taken) == 3
        assert all(token % 2 == 0 for token in grammar.taken)

    @pytest.mark.parametrize("temperature", [0.0, 1.0])
    def test_nan_is_seen_where_no_token_may_come(self, temperature: float) -> None:
        row = np.zeros(10, np.float32)
        row[3] = math.nan
        with pytest.raises(InternalError):
            Sampler(sampling(temperature=temperature, grammar=OnlyEven())).choose(row)


class TestForks:
    @given(row=ROWS.filter(lambda row: np.isfinite(row[::2]).any()), how=CHOICES)
    def test_a_fork_chooses_the_same_and_changes_nothing(self, row: Row, how: Sampling) -> None:
        how = replace(how, grammar=OnlyEven() if len(row) % 3 else None, logprobs=2)
        sampler = Sampler(how, [1], is_raced=True)
        for _ in range(3):
            fork = sampler.fork()
            proposed, logprob = fork.choose(row)
            assert logprob is None
            following = fork.choose(row)[0]
            assert sampler.choose(row)[0] == proposed
            assert sampler.fork().choose(row)[0] == following

    def test_two_models_mostly_draw_the_same(self) -> None:
        """Beyond the bound, by three standard deviations at most; the CDF's way is far below it."""
        random = np.random.default_rng(0)
        one = random.standard_normal(200, dtype=np.float32) * 3
        other = one + random.standard_normal(200, dtype=np.float32) * np.float32(0.5)
        p, q = (np.exp(row - row.max()) / np.exp(row - row.max()).sum() for row in (one, other))
        distance = np.abs(p - q).sum() / 2
        bound = (1 - distance) / (1 + distance)
        assert 0.5 < bound < 0.9
        num = 2_000
        same = sum(
            Sampler(how, is_raced=True).choose(one)[0]
            == Sampler(how, is_raced=True).choose(other)[0]
            for how in (sampling(temperature=1.0, seed=seed) for seed in range(num))
        )
        assert same / num > bound - 3 * math.sqrt(bound * (1 - bound) / num)
