"""What every runtime's generators keep to in every recipe that it has, whatever the tables hold.

Bounds are each recipe's own, from its ``GeneratorExpectation``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from serving.checkpoint import read_config, weight_shapes
from serving.errors import InvalidField, MayPass, SourceError
from serving.generator.grammar import Grammars
from serving.generator.json_schema import schema_rule
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.runtimes.matrix import why_not
from serving.seams import (
    GREEDY,
    Checkpoint,
    Combination,
    GeneratorEngine,
    GeneratorExpectation,
    Sampling,
    SizeEstimate,
    SizeRequest,
    TokenRequest,
    TokenTable,
)
from tests.matrix import takes_all
from tests.unit.runtimes.generating import Arrivals, one_by_one, requests, tokens_of
from tests.unit.runtimes.tiny_generators import (
    MODELS,
    VOCABULARY,
    open_request,
    prepare_request,
    random_tokens,
    save_generator,
)

VARIANTS = [
    (runtime, recipe)
    for runtime, recipe in product(RUNTIMES, RECIPES)
    if why_not(Combination(recipe, "generator", "cpu", "safetensors"), runtime) is None
]
NAMES = ("llama", "qwen3-biases", "qwen2")
"""One with a shared table, two without, of which every runtime has one at least."""

REFUSED = {("llama.cpp", "qwen3-biases")}
"""What a runtime does not know."""

KV_NUMBERS_PER_TOKEN = 3 * 2 * 2 * 32
"""Keys and values of two heads of 32 numbers, in three layers."""

Logits = NDArray[np.float64]


class Shelf:
    """Prepares each model in each variant once, and opens it as often as tests want."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._engines: list[GeneratorEngine] = []
        self.checkpoints = {name: save_generator(root / name, **MODELS[name]) for name in NAMES}

    def folder(self, runtime: str, recipe: str, name: str) -> Path:
        folder = self._root / "artifacts" / runtime / recipe / name
        if not folder.exists():
            folder.mkdir(parents=True)
            RUNTIMES[runtime].prepare(prepare_request(recipe, self.checkpoints[name], folder))
        return folder

    def open(
        self, runtime: str, recipe: str, name: str = "llama", **changes: Any
    ) -> GeneratorEngine:
        self.skip_refused(runtime, recipe, name)
        open_generator = RUNTIMES[runtime].open_generator
        assert open_generator is not None
        folder = self.folder(runtime, recipe, name)
        self._engines.append(open_generator(open_request(recipe, folder, **changes)))
        return self._engines[-1]

    def skip_refused(self, runtime: str, recipe: str, name: str) -> None:
        """Leave out what the runtime says that it cannot do with such a model."""
        config = read_config(self.checkpoints[name])
        combination = Combination(recipe, "generator", "cpu", "safetensors", config)
        if (reason := why_not(combination, runtime)) is not None:
            pytest.skip(reason)

    def close(self) -> None:
        while self._engines:
            self._engines.pop().close()


@pytest.fixture(scope="module")
def whole_shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture
def shelf(whole_shelf: Shelf) -> Iterator[Shelf]:
    """Closes after the test what it opened."""
    yield whole_shelf
    whole_shelf.close()


def cells() -> list[tuple[str, str, str]]:
    """Every variant on one of the models that its runtime knows, in turns, or on all of them."""
    chosen = []
    for number, (runtime, recipe) in enumerate(VARIANTS):
        names = [name for name in NAMES if (runtime, name) not in REFUSED]
        wanted = names if takes_all() else [names[number % len(names)]]
        chosen += [(runtime, recipe, name) for name in wanted]
    return chosen


each_variant = pytest.mark.parametrize(("runtime", "recipe"), VARIANTS)
each_cell = pytest.mark.parametrize(("runtime", "recipe", "name"), cells())


def expectation_of(recipe: str) -> GeneratorExpectation:
    expectation = RECIPES[recipe].generator
    assert expectation is not None, f"{recipe} says nothing of generators"
    return expectation


TEXTS = [random_tokens(100, seed) for seed in range(4)]
ALL_LOGPROBS = replace(GREEDY, logprobs=VOCABULARY)


async def logits_of(engine: GeneratorEngine, text: Sequence[int]) -> Logits:
    """float64 (tokens - 1, vocabulary), after each token but the last, up to their mean.

    Log-probabilities are logits less a number for each row; without the mean, both are the same.
    """
    asked = TokenRequest(tuple(text), 0, frozenset(), ALL_LOGPROBS, logprobs_from=1)
    events = [event async for event in engine.generate(asked)]
    assert [len(event.prompt) for event in events] == [len(text) - 1]
    rows = np.empty((len(text) - 1, VOCABULARY))
    for row, scored in zip(rows, events[0].prompt, strict=True):
        tokens, logprobs = zip(*scored.top, strict=True)
        row[list(tokens)] = logprobs
    return rows - rows.mean(1, keepdims=True)


async def one_at_a_time(engine: GeneratorEngine) -> Logits:
    return np.concatenate([await logits_of(engine, text) for text in TEXTS])


def cosines(a: Logits, b: Logits) -> NDArray[np.float64]:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(1) / lengths


def same_top(a: Logits, b: Logits) -> float:
    return float((a.argmax(1) == b.argmax(1)).mean())


@each_cell
async def test_logits_agree_with_fp32_on_torch(
    shelf: Shelf, runtime: str, recipe: str, name: str
) -> None:
    engine, expectation = shelf.open(runtime, recipe, name), expectation_of(recipe)
    if not engine.can_score:
        pytest.skip("it scores no prompts")
    logits = await one_at_a_time(engine)
    expected = await one_at_a_time(shelf.open("torch", "fp32", name))
    assert cosines(logits, expected).mean() >= expectation.cosine
    assert same_top(logits, expected) >= expectation.same_top


@each_cell
async def test_company_changes_little(shelf: Shelf, runtime: str, recipe: str, name: str) -> None:
    engine, expectation = shelf.open(runtime, recipe, name, num_slots=6), expectation_of(recipe)
    if not engine.can_score:
        pytest.skip("it scores no prompts")
    alone = await one_at_a_time(engine)
    # Others that decode make the engine take prompts in small pieces.
    others = [asyncio.create_task(tokens_of(engine.generate(asked))) for asked in requests()[:2]]
    await asyncio.sleep(0)
    together = np.concatenate(await asyncio.gather(*(logits_of(engine, text) for text in TEXTS)))
    await asyncio.gather(*others)
    change = np.linalg.norm(together - alone, axis=1) / np.linalg.norm(alone, axis=1)
    assert change.max() <= expectation.company_change
    assert same_top(together, alone) >= expectation.company_same_top


@each_cell
async def test_most_of_a_text_is_the_same_in_company(
    shelf: Shelf, runtime: str, recipe: str, name: str
) -> None:
    engine, asked = shelf.open(runtime, recipe, name, num_slots=3), requests()
    expected = await one_by_one(engine, asked)
    assert len({token for answer in expected for token in answer}) > 50, "a dull model"
    shares = []
    for seed in range(2):
        for found, wanted in zip(await Arrivals(engine, seed).run(asked), expected, strict=True):
            pairs = enumerate(zip(found, wanted, strict=True))
            shares.append(next((i for i, (a, b) in pairs if a != b), len(wanted)) / len(wanted))
    assert np.mean(shares) >= expectation_of(recipe).company_same_text


@each_cell
async def test_a_seed_gives_the_same_text_again(
    shelf: Shelf, runtime: str, recipe: str, name: str
) -> None:
    def sampled(seed: int) -> list[TokenRequest]:
        return requests(Sampling(0.8, 0.95, 0, seed, 0, 0, None))[:4]

    first, second = (shelf.open(runtime, recipe, name) for _ in range(2))
    texts = await one_by_one(first, sampled(7))
    assert await one_by_one(second, sampled(7)) == texts
    others = await one_by_one(first, sampled(8))
    assert all(a != b for a, b in zip(texts, others, strict=True))
    if expectation_of(recipe).company_same_text == 1:
        assert await Arrivals(first, seed=0).run(sampled(7)) == texts


@each_cell
async def test_a_stop_token_is_the_last(shelf: Shelf, runtime: str, recipe: str, name: str) -> None:
    # What the first one has in its cache would change how the prompt is cut, and so its last bits.
    first, second = (shelf.open(runtime, recipe, name) for _ in range(2))
    asked = requests()[0]
    whole = await tokens_of(first.generate(asked))
    stop = whole[3]
    stopping = replace(asked, stop_tokens=frozenset({stop}))
    events = [event async for event in second.generate(stopping)]
    assert [event.token for event in events] == whole[: whole.index(stop) + 1]
    assert [event.finish for event in events] == [None] * whole.index(stop) + ["stop"]


@each_cell
async def test_an_engine_that_scores_no_prompts_says_so(
    shelf: Shelf, runtime: str, recipe: str, name: str
) -> None:
    engine = shelf.open(runtime, recipe, name)
    asked = replace(requests(ALL_LOGPROBS)[0], logprobs_from=1)
    if engine.can_score:
        event = await anext(aiter(engine.generate(asked)))
        assert len(event.prompt) == len(asked.prompt) - 1
    else:
        with pytest.raises(InvalidField):
            engine.generate(asked)


def estimate_of(runtime: str, recipe: str, checkpoint: Checkpoint) -> SizeEstimate:
    options = RECIPES[recipe].options()
    return RUNTIMES[runtime].estimate(
        SizeRequest(recipe, options, "generator", "cpu", weight_shapes(checkpoint))
    )


@each_cell
def test_the_estimate_meets_the_real_size(
    shelf: Shelf, runtime: str, recipe: str, name: str
) -> None:
    estimate = estimate_of(runtime, recipe, shelf.checkpoints[name])
    counted = shelf.open(runtime, recipe, name).footprint().weights_bytes
    # What is kept beside the weights is large only in a model as small as this one.
    assert counted == pytest.approx(estimate.weights_bytes, rel=0.02)


@each_cell
def test_cache_and_weights_are_counted_apart(
    shelf: Shelf, runtime: str, recipe: str, name: str
) -> None:
    # Whole blocks, of runtimes whose caches have some.
    engine = shelf.open(runtime, recipe, name, num_slots=2, slot_tokens=256)
    larger = shelf.open(runtime, recipe, name, num_slots=4, slot_tokens=256)
    number = estimate_of(runtime, recipe, shelf.checkpoints[name]).kv_number_bytes
    expected = 2 * 256 * KV_NUMBERS_PER_TOKEN * number
    assert engine.load().kv_cache_bytes == expected
    assert larger.load().kv_cache_bytes == 2 * expected
    assert larger.footprint().weights_bytes == engine.footprint().weights_bytes
    footprint = engine.footprint()
    assert footprint.weights_bytes < footprint.resident_bytes <= footprint.peak_bytes
    assert footprint.private_bytes <= footprint.resident_bytes
    assert (engine.max_tokens, engine.device) == (256, "cpu")


@each_variant
def test_missing_weights_are_refused(runtime: str, recipe: str, tmp_path: Path) -> None:
    checkpoint = save_generator(tmp_path / "checkpoint", num_hidden_layers=2)
    config = tmp_path / "checkpoint" / "config.json"
    config.write_text(
        config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3')
    )
    (tmp_path / "artifact").mkdir()
    with pytest.raises(SourceError, match=r"layers\.2\."):
        RUNTIMES[runtime].prepare(prepare_request(recipe, checkpoint, tmp_path / "artifact"))


LETTERS = TokenTable(
    [*(bytes([byte]) for byte in range(256)), *(b'"%c' % byte for byte in range(63)), b"</s>"],
    frozenset({VOCABULARY - 1}),
    frozenset({VOCABULARY - 1}),
)
"""What the tokens of the random models might say."""

SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": ["one", "two"]}, "b": {"type": "boolean"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


@each_cell
async def test_an_answer_keeps_to_a_grammar(
    shelf: Shelf, runtime: str, recipe: str, name: str
) -> None:
    """Greedy or drawn, and beside a free one."""
    engine = shelf.open(runtime, recipe, name, slot_tokens=256)
    lark = f"start: answer\nanswer: {schema_rule(SCHEMA)}"
    grammar = Grammars(lambda: LETTERS).compile(lark, "response_format")
    drawn = Sampling(1, 0.9, 40, 7, 0.5, 0, 2, repetition_penalty=1.1, grammar=grammar)
    held = [
        TokenRequest(tuple(random_tokens(9, seed)), 240, LETTERS.stop, sampling)
        for seed, sampling in enumerate([replace(GREEDY, grammar=grammar), drawn])
    ]
    free = replace(held[0], sampling=GREEDY, stop_tokens=frozenset())
    together = await asyncio.gather(*(tokens_of(engine.generate(r)) for r in [*held, free]))
    for *tokens, last in together[:2]:
        assert last in LETTERS.stop
        jsonschema.validate(json.loads(b"".join(LETTERS.raw[token] for token in tokens)), SCHEMA)
    assert len(together[2]) == 240


@pytest.mark.parametrize("runtime", sorted({runtime for runtime, _ in VARIANTS}))
def test_what_was_removed_before_it_is_opened_is_no_refusal(runtime: str, tmp_path: Path) -> None:
    recipe = next(recipe for name, recipe in VARIANTS if name == runtime)
    # The next replica finds that it is gone, and has it made. A ValueError is transformers'.
    open_generator = RUNTIMES[runtime].open_generator
    assert open_generator is not None
    with pytest.raises((OSError, ValueError, MayPass)):
        open_generator(open_request(recipe, tmp_path))
