"""Steps of a decoder, whatever they are made of, against transformers' own forward pass."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from numpy.typing import NDArray

from serving.runtimes.torch.footprint import weights_bytes
from serving.seams import Decoder, Segment
from tests.matrix import pairs
from tests.unit.runtimes.tiny_generators import (
    MODELS,
    TORCH_RECIPES,
    VOCABULARY,
    decoder_of,
    logits_of,
    numerics_of,
    random_model,
    random_tokens,
)

TOLERANCE = 1e-4
"""As in ``test_causal_lm``: the last bits of float32 sums, over three layers."""

NUM_SLOTS, SLOT_TOKENS = 5, 64
NAMES = ("llama", "qwen3-biases", "gemma2", "gemma3", "phi3-partial", "gpt2", "gpt-neox")
"""Groups of heads with one key; norms of heads and biases as well; and one of each other family."""

Logits = NDArray[np.float32]


@dataclass
class Running:
    """A sequence on its way through a slot.

    Attributes:
        expected: Logits after each of its tokens, by transformers.
    """

    slot: int
    tokens: list[int]
    expected: Logits
    start: int = 0


@dataclass
class RandomSteps:
    """Sequences that come, go on in pieces of any size, in any order, and leave their slots."""

    model: object
    seed: int
    running: dict[int, Running] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def arrive(self) -> None:
        """Start a sequence in some of the free slots."""
        for slot in range(NUM_SLOTS):
            if slot not in self.running and self.random.random() < 0.5:
                length = int(self.random.integers(1, SLOT_TOKENS + 1))
                tokens = random_tokens(length, int(self.random.integers(2**31)))
                self.running[slot] = Running(slot, tokens, logits_of(self.model, tokens))

    def step(self) -> tuple[list[Segment], Logits]:
        """Some of the running sequences go on by some tokens; also returns what must come out."""
        chosen = [s for s in self.running.values() if self.random.random() < 0.7]
        chosen = [chosen[place] for place in self.random.permutation(len(chosen))]
        segments, expected = [], [np.empty((0, VOCABULARY), np.float32)]
        for sequence in chosen:
            left = len(sequence.tokens) - sequence.start
            is_decoding = self.random.random() < 0.6
            count = 1 if is_decoding else int(self.random.integers(1, left + 1))
            start, end = sequence.start, sequence.start + count
            numbers = np.array([0, 1, count, self.random.integers(count + 1)])
            num_logits = int(self.random.choice(numbers))
            tokens = sequence.tokens[start:end]
            segments.append(Segment(sequence.slot, start, tokens, num_logits))
            expected.append(sequence.expected[end - num_logits : end])
            sequence.start = end
            if end == len(sequence.tokens) or self.random.random() < 0.05:
                del self.running[sequence.slot]
        return segments, np.concatenate(expected)


@pytest.mark.parametrize(("name", "seed"), pairs(NAMES, range(12)))
def test_any_steps_give_the_logits_of_whole_passes(name: str, seed: int) -> None:
    decoder = decoder_of(random_model(**MODELS[name]), None, NUM_SLOTS, SLOT_TOKENS)
    steps = RandomSteps(random_model(**MODELS[name]), seed)
    num_rows = 0
    for _ in range(40):
        steps.arrive()
        segments, expected = steps.step()
        if segments:
            logits = decoder.step(segments)
            assert logits.shape == expected.shape
            np.testing.assert_allclose(logits, expected, atol=TOLERANCE, rtol=0)
            num_rows += len(logits)
    assert num_rows > 100


@pytest.mark.parametrize("name", NAMES)
def test_a_decoded_token_has_the_logits_of_a_prefilled_one(name: str) -> None:
    model, tokens = random_model(**MODELS[name]), random_tokens(SLOT_TOKENS, seed=1)
    expected = logits_of(model, tokens)
    decoder = decoder_of(model, None, NUM_SLOTS, SLOT_TOKENS)
    decoder.step([Segment(2, 0, tokens[:10], 0)])
    for position in range(10, SLOT_TOKENS):
        (row,) = decoder.step([Segment(2, position, tokens[position : position + 1])])
        np.testing.assert_allclose(row, expected[position], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("slots", [[0], [4], [1, 3], [3, 1], [4, 0, 2], [2, 1, 3], [4, 3, 2, 1, 0]])
def test_rows_come_in_the_order_of_the_segments(slots: list[int]) -> None:
    model = random_model(**MODELS["llama"])
    texts = {slot: random_tokens(5 + 3 * slot, seed=slot) for slot in range(NUM_SLOTS)}
    expected = {slot: logits_of(model, tokens)[-1] for slot, tokens in texts.items()}
    decoder = decoder_of(model, None, NUM_SLOTS, SLOT_TOKENS)
    decoder.step([Segment(slot, 0, tokens[:-1], 0) for slot, tokens in texts.items()])
    rows = decoder.step(
        [Segment(slot, len(texts[slot]) - 1, texts[slot][-1:], 1) for slot in slots]
    )
    for slot, row in zip(slots, rows, strict=True):
        np.testing.assert_allclose(row, expected[slot], atol=TOLERANCE, rtol=0)


def last_rows(decoder: Decoder, own: Sequence[int], others: Sequence[Sequence[int]]) -> Logits:
    """Logits of a sequence in slot 1 that is prefilled and decoded beside others."""
    slots = [0, 2, 3]
    decoder.step([Segment(slot, 0, o[:20], 0) for slot, o in zip(slots, others, strict=True)])
    rows = [decoder.step([Segment(1, 0, own[:9], 9), Segment(0, 20, others[0][20:24], 0)])]
    for i in range(9, len(own)):
        rows.append(
            decoder.step(
                [
                    Segment(3, i + 11, others[2][i + 11 : i + 12], 0),
                    Segment(1, i, own[i : i + 1], 1),
                ]
            )
        )
    return np.concatenate(rows)


@pytest.mark.parametrize("recipe", TORCH_RECIPES)
def test_a_sequence_does_not_see_what_others_hold(recipe: str) -> None:
    decoders = [decoder_of(random_model(**MODELS["llama"]), numerics_of(recipe)) for _ in range(2)]
    own = random_tokens(24, seed=1)
    logits = [
        last_rows(decoder, own, [random_tokens(40, seed=10 * i + j) for j in range(3)])
        for i, decoder in enumerate(decoders)
    ]
    # Same shapes, so the same sums in the same order: to the last bit.
    first, second = logits
    np.testing.assert_array_equal(first, second)
    changed = last_rows(
        decoders[0], random_tokens(24, seed=2), [random_tokens(40, j) for j in range(3)]
    )
    assert np.abs(changed - logits[0]).max() > 1


@pytest.mark.parametrize("recipe", TORCH_RECIPES)
def test_a_slot_forgets_what_it_held(recipe: str) -> None:
    used = decoder_of(random_model(**MODELS["llama"]), numerics_of(recipe))
    fresh = decoder_of(random_model(**MODELS["llama"]), numerics_of(recipe))
    used.step([Segment(slot, 0, random_tokens(128, seed=slot), 0) for slot in range(4)])
    own, others = random_tokens(24, seed=5), [random_tokens(40, seed=j) for j in range(3)]
    np.testing.assert_array_equal(last_rows(used, own, others), last_rows(fresh, own, others))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("slots", [(1, 1), (0, 1), (1, 2)], ids=["same", "before", "after"])
def test_nan_that_a_sequence_leaves_in_its_slot_reaches_no_other(
    slots: tuple[int, int], poison: float
) -> None:
    """Masked places are multiplied by weights of 0, which would bring a NaN into the sum."""
    sick, healthy = slots
    model = random_model(**MODELS["llama"])
    texts = [random_tokens(30, seed=seed) for seed in range(2)]
    expected = [logits_of(model, text) for text in texts]
    decoder = decoder_of(model, None, NUM_SLOTS, SLOT_TOKENS)
    table: Any = decoder._model.table
    weight = table.weight.data
    before = weight[7].clone()
    weight[7] = poison
    spoilt = decoder.step([Segment(sick, 0, [1] * 5 + [7] * 40)])
    assert not np.isfinite(spoilt).any()
    weight[7] = before
    # The healthy sequence is short, and decodes beside one that is so long that places are masked.
    long = 4 if sick != 4 else 3
    decoder.step([Segment(healthy, 0, texts[0][:6], 0), Segment(long, 0, texts[1][:20], 0)])
    for i in range(8):
        rows = decoder.step(
            [
                Segment(healthy, 6 + i, texts[0][6 + i : 7 + i]),
                Segment(long, 20 + i, texts[1][20 + i : 21 + i]),
            ]
        )
        wanted = np.stack([expected[0][6 + i], expected[1][20 + i]])
        np.testing.assert_allclose(rows, wanted, atol=TOLERANCE, rtol=0)


def test_a_step_that_wants_no_logits_returns_no_rows() -> None:
    decoder = decoder_of(random_model(**MODELS["llama"]))
    logits = decoder.step([Segment(0, 0, [1, 2, 3], 0)])
    assert logits.shape == (0, VOCABULARY)
    assert logits.dtype == np.float32


@pytest.mark.parametrize("recipe", TORCH_RECIPES)
def test_the_caller_may_change_the_logits(recipe: str) -> None:
    decoder = decoder_of(random_model(**MODELS["llama"]), numerics_of(recipe))
    first = decoder.step([Segment(0, 0, [1, 2, 3])])
    before = first.copy()
    decoder.step([Segment(1, 0, [7, 8, 9])])
    np.testing.assert_array_equal(first, before)
    first[:] = np.nan
    again = decoder.step([Segment(2, 0, [1, 2, 3])])
    np.testing.assert_array_equal(again, before)


def test_tokens_beyond_a_slot_are_refused_and_leave_the_next_one_alone() -> None:
    model, tokens = random_model(**MODELS["llama"]), random_tokens(20, seed=3)
    expected = logits_of(model, tokens)
    decoder = decoder_of(model, None, num_slots=2, slot_tokens=32)
    decoder.step([Segment(1, 0, tokens[:19], 0)])
    with pytest.raises(IndexError):
        decoder.step([Segment(0, 30, [1, 2, 3, 4], 0)])
    (row,) = decoder.step([Segment(1, 19, tokens[19:])])
    np.testing.assert_allclose(row, expected[19], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("recipe", TORCH_RECIPES)
def test_the_cache_is_counted_apart_and_takes_no_memory_before_it_is_used(recipe: str) -> None:
    model, numerics = random_model(**MODELS["llama"]), numerics_of(recipe)
    before = psutil.Process().memory_info().rss
    decoder = decoder_of(model, numerics, num_slots=64, slot_tokens=8192)
    # Keys and values of two heads of 32 numbers in three layers.
    expected = 64 * 8192 * 3 * 2 * 2 * 32 * numerics.cache_dtype.itemsize
    assert decoder.kv_cache_bytes == expected
    assert (decoder.num_slots, decoder.slot_tokens) == (64, 8192)
    decoder.step([Segment(40, 0, [1, 2, 3])])
    assert psutil.Process().memory_info().rss - before < expected / 4
    assert decoder.footprint().weights_bytes < 2_000_000


def test_the_footprint_is_that_of_the_fused_model() -> None:
    model = random_model(**MODELS["llama-untied"])
    expected = weights_bytes(model)
    # transformers also counts its frequencies of 16 pairs, twice.
    assert decoder_of(model).footprint().weights_bytes == expected - 2 * 16 * 4


def test_the_thread_that_takes_steps_gets_the_threads() -> None:
    decoder = decoder_of(random_model(**MODELS["llama"]))
    seen: list[int] = []
    before = torch.get_num_threads()

    def work() -> None:
        torch.set_num_threads(2)
        decoder.step([Segment(0, 0, [1])])
        seen.append(torch.get_num_threads())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    torch.set_num_threads(before)
    assert seen == [1]


@pytest.mark.parametrize("recipe", TORCH_RECIPES)
def test_a_shared_beginning_is_one_of_its_own(recipe: str) -> None:
    """For the slot that was given it, whatever it held, and for the one that gave it."""
    first = random_tokens(90, seed=1)
    second = first[:45] + random_tokens(45, seed=2)

    def run(is_shared: bool) -> tuple[Logits, Logits]:
        decoder = decoder_of(random_model(**MODELS["llama"]), numerics_of(recipe))
        decoder.step([Segment(1, 0, random_tokens(80, seed=3), 0)])
        decoder.step([Segment(0, 0, first[:70], 0)])
        if is_shared:
            decoder.share_prefix(0, 1, 45)
        else:
            decoder.step([Segment(1, 0, first[:70], 0)])
        given = decoder.step([Segment(1, 45, second[45:], 45)])
        return given, decoder.step([Segment(0, 70, first[70:], 20)])

    for found, wanted in zip(run(True), run(False), strict=True):
        np.testing.assert_array_equal(found, wanted)
