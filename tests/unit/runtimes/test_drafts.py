"""Real decoders of one runtime check what those of another propose; tokens are the exact one's."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from serving.cores import UnsharedCores
from serving.generator import SlotGenerator
from serving.generator.drafting import Drafter
from serving.generator.grammar import Grammars
from serving.generator.json_schema import schema_rule
from serving.runtimes import RUNTIMES
from serving.runtimes.matrix import why_not
from serving.seams import (
    GREEDY,
    Combination,
    Decoder,
    GeneratedToken,
    Sampling,
    Segment,
    TokenRequest,
)
from tests.unit.runtimes.generating import Arrivals, one_by_one, requests
from tests.unit.runtimes.test_generator_contract import LETTERS, SCHEMA
from tests.unit.runtimes.tiny_generators import (
    MODELS,
    VOCABULARY,
    open_request,
    prepare_request,
    random_tokens,
    save_generator,
)

EXACT = [
    runtime
    for runtime in RUNTIMES
    if why_not(Combination("fp32", "generator", "cpu", "safetensors"), runtime) is None
]
STEPPED = [
    (runtime, recipe)
    for runtime, recipe in (("torch", "fp32"), ("openvino", "fp32"), ("llama.cpp", "f16"))
    if why_not(Combination(recipe, "generator", "cpu", "safetensors"), runtime) is None
]
DRAFTS = [
    (runtime, recipe)
    for runtime, recipe in (("llama.cpp", "q4_0"), ("torch", "int4"))
    if why_not(Combination(recipe, "generator", "cpu", "safetensors"), runtime) is None
]
NUM_SLOTS = 8

Open = Callable[[str, str], Callable[[], Decoder]]


@pytest.fixture(scope="module")
def open_decoder(tmp_path_factory: pytest.TempPathFactory) -> Open:
    """Opens one tiny model in any cell; each is prepared once."""
    root = tmp_path_factory.mktemp("drafts")
    checkpoint = save_generator(root / "llama", **MODELS["llama"])

    def folder_of(runtime: str, recipe: str) -> Path:
        folder = root / f"{recipe}-{runtime}"
        if not folder.exists():
            folder.mkdir()
            RUNTIMES[runtime].prepare(prepare_request(recipe, checkpoint, folder))
        return folder

    def open_one(runtime: str, recipe: str) -> Callable[[], Decoder]:
        make = RUNTIMES[runtime].open_decoder
        assert make is not None
        folder = folder_of(runtime, recipe)
        return partial(make, open_request(recipe, folder, NUM_SLOTS, slot_tokens=256))

    return open_one


Engines = Callable[..., SlotGenerator]


@pytest.fixture
def open_engine(open_decoder: Open) -> Iterator[Engines]:
    """Opens engines, with a draft or without, and closes them."""
    engines: list[SlotGenerator] = []

    def open_one(
        runtime: str, draft: tuple[str, str] | None = None, length: int | None = 3
    ) -> SlotGenerator:
        make_drafter = None
        if draft is not None:
            make_draft = open_decoder(*draft)
            make_drafter = lambda: Drafter(make_draft(), length)  # noqa: E731
        engines.append(
            SlotGenerator(
                open_decoder(runtime, "fp32"),
                UnsharedCores(1),
                max_waiting=2_000,
                make_drafter=make_drafter,
            )
        )
        return engines[-1]

    yield open_one
    for engine in engines:
        engine.close()


@pytest.mark.parametrize(("runtime", "recipe"), STEPPED)
def test_tokens_that_were_tried_can_be_taken_back(
    open_decoder: Open, runtime: str, recipe: str
) -> None:
    """A slot goes on from any place before its end as if nothing had stood behind it."""
    decoder = open_decoder(runtime, recipe)()
    text, wrong = random_tokens(40, seed=1), random_tokens(30, seed=2)
    [whole] = decoder.step([Segment(0, 0, text)])
    decoder.step([Segment(1, 0, text[:20]), Segment(2, 0, text[:33])])
    # Behind a block's border and before it, in steps of their own and in those of others.
    decoder.step([Segment(1, 20, wrong, 30), Segment(2, 33, wrong[:5], 5)])
    decoder.step([Segment(1, 20, text[20:21]), Segment(2, 33, text[33:35])])
    rows = decoder.step([Segment(1, 21, text[21:]), Segment(2, 35, text[35:])])
    for row in rows:
        # Float32 sums in another order; llama.cpp adds up values in float16 of a float16 model.
        assert np.linalg.norm(row - whole) < 0.01 * np.linalg.norm(whole)


@pytest.mark.parametrize(("runtime", "draft"), list(product(EXACT, DRAFTS)))
async def test_greedy_texts_are_those_of_the_exact_decoder(
    open_engine: Engines, runtime: str, draft: tuple[str, str]
) -> None:
    asked = requests()
    expected = await one_by_one(open_engine(runtime), asked)
    drafted = open_engine(runtime, draft)
    assert await Arrivals(drafted, seed=3).run(asked) == expected
    counts = drafted.drafted
    # A random model's q4_0 says something else often enough.
    assert counts.accepted > 20
    assert counts.rejected > 0


@pytest.mark.parametrize("how", ["plain", "everything"])
async def test_a_seed_gives_the_same_text(open_engine: Engines, how: str) -> None:
    """In any company, whatever number of tokens is proposed, and by whichever draft."""
    everything = Sampling(0.8, 0.95, 50, 7, 0.3, 0.1, 2, 0.01, 1.1, ((5, 1.0),))
    asked = requests(everything if how == "everything" else Sampling(0.7, 1, 0, 7, 0, 0, None))
    expected = await one_by_one(open_engine("torch", DRAFTS[0], 1), asked)
    for draft, length in product(DRAFTS, (4, None)):
        drafted = open_engine("torch", draft, length)
        assert await Arrivals(drafted, seed=1).run(asked) == expected
        assert drafted.drafted.accepted > 0
        assert drafted.drafted.rejected > 0


async def events_of(stream: AsyncIterator[GeneratedToken]) -> list[GeneratedToken]:
    return [event async for event in stream]


async def test_log_probabilities_are_the_exact_decoder_s(open_engine: Engines) -> None:
    asked = replace(requests(replace(GREEDY, logprobs=3))[1], logprobs_from=1)
    expected = await events_of(open_engine("torch").generate(asked))
    found = await events_of(open_engine("torch", DRAFTS[0], 4).generate(asked))
    assert [event.token for event in found] == [event.token for event in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.logprob is not None
        assert other.logprob is not None
        # Rows of one product and of five: another order of float32 sums.
        assert one.logprob.logprob == pytest.approx(other.logprob.logprob, abs=1e-3)
        assert len(one.prompt) == len(other.prompt)


async def test_an_answer_keeps_to_a_grammar(open_engine: Engines) -> None:
    grammar = Grammars(lambda: LETTERS).compile(
        f"start: answer\nanswer: {schema_rule(SCHEMA)}", "response_format"
    )
    asked = [
        TokenRequest(
            tuple(random_tokens(9, seed)),
            240,
            LETTERS.stop,
            Sampling(temperature, 1, 0, seed, 0, 0, None, grammar=grammar),
        )
        for seed, temperature in enumerate([0, 1])
    ]
    expected = await one_by_one(open_engine("torch", DRAFTS[0], 1), asked)
    drafted = open_engine("torch", DRAFTS[0], 4)
    found = await asyncio.gather(*(events_of(drafted.generate(one)) for one in asked))
    assert [[event.token for event in events] for events in found] == expected
    for events in found:
        text = b"".join(LETTERS.raw[event.token] for event in events[:-1])
        jsonschema.validate(json.loads(text), SCHEMA)
    assert drafted.drafted.accepted > 10


async def test_a_sequence_that_is_given_up_leaves_the_others_alone(open_engine: Engines) -> None:
    asked = requests()[:3]
    expected = await one_by_one(open_engine("torch"), asked)
    drafted = open_engine("torch", DRAFTS[0])
    given_up = drafted.generate(replace(asked[0], max_new_tokens=150))
    await anext(given_up)
    others = [asyncio.create_task(events_of(drafted.generate(one))) for one in asked]
    await anext(given_up)
    await given_up.aclose()
    found = await asyncio.gather(*others)
    assert [[event.token for event in events] for events in found] == expected


HOWS = {
    "temperature": Sampling(0.6, 1, 0, 0, 0, 0, None),
    "top_p": Sampling(0.8, 0.7, 0, 0, 0, 0, None),
    "top_k": Sampling(1, 1, 12, 0, 0, 0, None),
    "min_p": Sampling(1, 1, 0, 0, 0, 0, None, min_p=0.05),
    "penalties": Sampling(1, 1, 12, 0, 0.7, 0.3, None, repetition_penalty=1.3),
    "logit_bias": Sampling(1, 1, 12, 0, 0, 0, None, logit_bias=((5, 3.0), (9, -3.0))),
}
NUM_SEEDS = 800
PROMPT = tuple(random_tokens(6, seed=3))


@pytest.mark.parametrize("how", HOWS)
async def test_sampled_tokens_have_the_exact_distribution(
    open_decoder: Open, open_engine: Engines, how: str
) -> None:
    """Chi-square of the second new token, the first that is checked, over many seeds.

    Given the most frequent first one. A right sampler is refused once in 10,000 such tests.
    """
    sampling = HOWS[how]
    drafted = open_engine("torch", DRAFTS[0], 2)
    asked = [
        TokenRequest(PROMPT, 3, frozenset(), replace(sampling, seed=seed))
        for seed in range(NUM_SEEDS)
    ]
    events = await asyncio.gather(*(events_of(drafted.generate(one)) for one in asked))
    assert min(drafted.drafted.accepted, drafted.drafted.rejected) > NUM_SEEDS / 10
    firsts = Counter(found[0].token for found in events)
    first = firsts.most_common(1)[0][0]
    second = Counter(found[1].token for found in events if found[0].token == first)
    [row] = open_decoder("torch", "fp32")().step([Segment(0, 0, (*PROMPT, first))])
    expected = distribution(row.astype(np.float64), sampling, PROMPT, (first,))
    assert p_value(second, expected) > 1e-4


def distribution(
    logits: NDArray[np.float64],
    how: Sampling,
    prompt: Sequence[int],
    new: Sequence[int],
) -> NDArray[np.float64]:
    """Probability of each token, (vocabulary,), written out with full sorts."""
    for token, addend in how.logit_bias:
        logits[token] += addend
    for token in {*prompt, *new}:
        logits[token] *= how.repetition_penalty ** -np.sign(logits[token])
    for token, count in Counter(new).items():
        logits[token] -= count * how.frequency_penalty + how.presence_penalty
    order = np.argsort(-logits, kind="stable")
    if how.top_k:
        order = order[: how.top_k]
    weights = np.exp((logits[order] - logits[order[0]]) / how.temperature)
    reached = np.cumsum(weights) / weights.sum()
    kept = np.arange(len(order)) <= np.searchsorted(reached, how.top_p)
    kept &= weights >= how.min_p
    probabilities = np.zeros(VOCABULARY)
    probabilities[order[kept]] = weights[kept] / weights[kept].sum()
    return probabilities


def p_value(found: Counter[int], expected: NDArray[np.float64]) -> float:
    """Of a chi-square test; tokens that are expected fewer than five times count as one."""
    num = found.total()
    assert num >= 100
    assert all(expected[token] > 0 for token in found)
    likely = np.flatnonzero(expected * num >= 5)
    observed = np.array([found[int(token)] for token in likely], np.float64)
    wanted = expected[likely] * num
    if num - wanted.sum() >= 5:
        observed, wanted = (np.append(x, num - x.sum()) for x in (observed, wanted))
    else:
        observed[-1] += num - observed.sum()
        wanted[-1] += num - wanted.sum()
    assert len(wanted) > 2, "a dull distribution"
    return float(stats.chisquare(observed, wanted).pvalue)
