"""The real SmolLM2 in every recipe on every runtime: its perplexity over what transformers finds.

The text is the beginning of the demo's film reviews; what is served is prepared here, in one
thread. ``make test`` leaves out what the running demo is asked
(``tests/integration/test_generation.py``) and what takes minutes to prepare, and ``make test-all``
has all of it.
"""

from __future__ import annotations

import math
from contextlib import aclosing
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from serving.checkpoint import find_checkpoint
from serving.demo.prepare import demo_directory, generator_checkpoint, prepare_smollm2
from serving.demo.reviews import read_reviews
from serving.recipes import RECIPES
from serving.recipes.int4 import Int4Options
from serving.runtimes import RUNTIMES
from serving.runtimes.matrix import why_not
from serving.seams import GREEDY, Arrays, Combination, GeneratorEngine, TokenRequest
from tests.matrix import takes_all
from tests.unit.runtimes.tiny_generators import open_request, prepare_request

NUM_TOKENS = 385
NUM_SENTENCES = 60
CALIBRATION_TEXTS, TEXT_SENTENCES, FIRST_SENTENCE = 32, 10, 1_000
"""What methods of int4 measure inputs with: sentences far behind those of the text."""

METHODS = ("rtn", "hqq", "scale-estimation", "awq", "gptq")


class Form(NamedTuple):
    """What is served; ``method`` is int4's."""

    runtime: str
    recipe: str
    method: str | None = None


class Found(NamedTuple):
    """Upper end of the interval of a form's ratio, and whether ``make test`` asks for it."""

    ratio: float
    always: bool = True


FOUND = {
    Form("torch", "bf16"): Found(1.004, always=False),
    Form("torch", "int8-dynamic"): Found(1.055, always=False),
    # Not measured: it rounds what int8-dynamic rounds, less a few inputs.
    Form("torch", "int8-outlier"): Found(1.055, always=False),
    Form("torch", "f16"): Found(1.001, always=False),
    Form("torch", "fp8"): Found(1.038, always=False),
    Form("torch", "nf4"): Found(1.295, always=False),
    Form("torch", "int4"): Found(1.129, always=False),
    Form("torch", "int4", "rtn"): Found(1.466, always=False),
    Form("torch", "int4", "hqq"): Found(1.358, always=False),
    Form("torch", "int4", "awq"): Found(1.186, always=False),
    Form("torch", "int4", "gptq"): Found(1.296, always=False),
    Form("openvino", "bf16"): Found(1.005, always=False),
    Form("openvino", "int8-dynamic"): Found(1.013),
    Form("openvino", "int8-weights"): Found(1.001, always=False),
    Form("openvino", "int4"): Found(1.213, always=False),
    Form("openvino", "int4", "rtn"): Found(1.38, always=False),
    Form("openvino", "int4", "scale-estimation"): Found(1.16, always=False),
    # Not measured: no worse than rounding to the nearest.
    Form("openvino", "int4", "awq"): Found(1.38, always=False),
    Form("openvino", "int4", "gptq"): Found(1.38, always=False),
    Form("llama.cpp", "f16"): Found(1.0002, always=False),
    Form("llama.cpp", "q8_0"): Found(1.020, always=False),
    Form("llama.cpp", "q6_k"): Found(1.029, always=False),
    Form("llama.cpp", "q5_k_m"): Found(1.143, always=False),
    Form("llama.cpp", "q4_k_m"): Found(1.059),
    Form("llama.cpp", "q4_0"): Found(1.297, always=False),
    Form("llama.cpp", "q3_k_m"): Found(1.185, always=False),
    Form("llama.cpp", "q2_k"): Found(1.466, always=False),
    Form("llama.cpp", "stored"): Found(1.014, always=False),
}
"""What ``benchmarks.perplexity`` found over 1,024 predictions of the same reviews: in 95 of 100
texts of their kind the ratio is no greater."""

LEEWAY = 0.01
"""Of the ratio, for other instruction sets. Where they matter most, in int8-dynamic on torch, which
has 7 bits of a weight without VNNI, they made 0.006 (docs/variants.md)."""


def possible_forms() -> list[Form]:
    """All that generates on the CPU here from a checkpoint of floats, and the demo's GGUF file."""
    forms = [
        Form(runtime, recipe)
        for runtime, recipe in product(RUNTIMES, RECIPES)
        if why_not(Combination(recipe, "generator", "cpu", "safetensors"), runtime) is None
    ]
    forms += [
        Form(runtime, "int4", method)
        for runtime, method in product(RUNTIMES, METHODS)
        if why_not(_int4(method), runtime) is None
    ]
    stored = Combination("stored", "generator", "cpu", "gguf")
    forms += [Form(name, "stored") for name in RUNTIMES if why_not(stored, name) is None]
    return [form for form in forms if form.recipe != "fp32"]


def _int4(method: str) -> Combination:
    options = Int4Options.model_validate({"method": method})
    return Combination("int4", "generator", "cpu", "safetensors", options=options)


@pytest.fixture(scope="module")
def smollm2() -> Path:
    return prepare_smollm2(demo_directory())


@pytest.fixture(scope="module")
def tokens(smollm2: Path) -> tuple[int, ...]:
    text = "\n".join(review.text for review in read_reviews()[:NUM_SENTENCES])
    ids = AutoTokenizer.from_pretrained(smollm2)(text)["input_ids"]
    assert len(ids) > NUM_TOKENS
    return tuple(ids[:NUM_TOKENS])


@pytest.fixture(scope="module")
def expected(smollm2: Path, tokens: tuple[int, ...]) -> float:
    """Perplexity of transformers' own pass in float32."""
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()
    ids = torch.tensor([tokens])
    with torch.inference_mode():
        return math.exp(model(ids, labels=ids).loss)


@pytest.fixture(scope="module")
def calibration(smollm2: Path) -> list[Arrays]:
    sentences = [review.text for review in read_reviews()[FIRST_SENTENCE:]]
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    starts = range(0, CALIBRATION_TEXTS * TEXT_SENTENCES, TEXT_SENTENCES)
    texts = [" ".join(sentences[start : start + TEXT_SENTENCES]) for start in starts]
    return [{"input_ids": np.array([tokenizer(text)["input_ids"]])} for text in texts]


async def perplexity(engine: GeneratorEngine, tokens: tuple[int, ...]) -> float:
    """Of tokens from the second on, each predicted from all before; the engine is closed then."""
    asked = TokenRequest(tokens, 0, frozenset(), replace(GREEDY, logprobs=1), logprobs_from=1)
    try:
        async with aclosing(engine.generate(asked)) as answer:
            scores = (await anext(answer)).prompt
    finally:
        engine.close()
    assert len(scores) == len(tokens) - 1
    return math.exp(-fmean(score.logprob for score in scores))


def test_every_form_has_a_bound() -> None:
    assert set(possible_forms()) <= set(FOUND)


@pytest.mark.parametrize(
    "form",
    [form for form in possible_forms() if form in FOUND and (FOUND[form].always or takes_all())],
    ids=lambda form: "-".join(filter(None, form)),
)
async def test_perplexity_is_bounded(
    form: Form,
    smollm2: Path,
    tokens: tuple[int, ...],
    expected: float,
    calibration: list[Arrays],
    tmp_path: Path,
) -> None:
    runtime, recipe = RUNTIMES[form.runtime], form.recipe
    options: dict[str, Any] = {} if form.method is None else {"method": form.method}
    calibrates = RECIPES[recipe].calibrates(RECIPES[recipe].options(**options))
    stored = recipe == "stored"
    source = generator_checkpoint() if stored else find_checkpoint("smollm2", str(smollm2))
    asked = prepare_request(recipe, source, tmp_path, **options)
    runtime.prepare(replace(asked, calibration=calibration if calibrates else ()))
    assert runtime.open_generator is not None
    engine = runtime.open_generator(
        open_request(recipe, tmp_path, num_slots=1, slot_tokens=NUM_TOKENS, **options)
    )
    assert await perplexity(engine, tokens) / expected <= FOUND[form].ratio + LEEWAY
