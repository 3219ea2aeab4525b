"""``int4`` of whole models by each of its methods."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.checkpoint import weight_shapes
from serving.recipes import RECIPES
from serving.runtimes.torch.runtime import RUNTIME
from serving.seams import Checkpoint, SizeRequest
from tests.unit.runtimes.closeness import Rows, mean_cosine
from tests.unit.runtimes.tiny_generators import (
    MODELS,
    save_generator,
)
from tests.unit.runtimes.tiny_models import save_model
from tests.unit.runtimes.torch.conversions.answers import (
    encoder_rows,
    generator_logits,
    opened_generator,
)

OPTIONS: list[dict[str, Any]] = [
    {},
    {"method": "rtn"},
    {"method": "rtn", "symmetric": True},
    {"method": "hqq"},
    {"method": "awq"},
    {"method": "awq", "symmetric": True},
    {"method": "gptq"},
    {"method": "gptq", "symmetric": True},
]


def test_encoders_by_each_method_are_near_and_each_another(tmp_path: Path) -> None:
    rows_of = partial(encoder_rows, tmp_path, save_model(tmp_path / "model", "embeddings"))
    expected, expectation = rows_of("fp32"), RECIPES["int4"].encoder
    assert expectation is not None
    seen: list[Rows] = []
    for options in OPTIONS:
        rows = rows_of("int4", **options)
        assert mean_cosine(rows, expected) >= expectation.cosine, options
        assert not any(np.array_equal(rows, other) for other in seen), options
        seen.append(rows)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return save_generator(tmp_path_factory.mktemp("llama"), **MODELS["llama"])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_generators_by_each_method_are_near(
    generator: Checkpoint, tmp_path: Path, options: dict[str, Any]
) -> None:
    expectation = RECIPES["int4"].generator
    assert expectation is not None
    expected = generator_logits(tmp_path, generator, "fp32")
    found = generator_logits(tmp_path, generator, "int4", **options)
    # What the recipe promises is of grids with offsets; rounded symmetrically, one has 0.738.
    least = 0.7 if options.get("symmetric") else expectation.cosine
    assert mean_cosine(found, expected) >= least


def test_gptq_of_a_generator_calibrates_on_the_texts(generator: Checkpoint, tmp_path: Path) -> None:
    """Layers whose heads the decoder reorders get the moments in the same order."""
    logits_of = partial(generator_logits, tmp_path, generator)
    expected = logits_of("fp32")
    rtn, gptq = logits_of("int4", method="rtn"), logits_of("int4", method="gptq")
    assert mean_cosine(gptq, expected) > mean_cosine(rtn, expected)


@pytest.mark.parametrize("method", ["rtn", "awq"])
def test_the_estimate_meets_the_real_size(
    generator: Checkpoint, tmp_path: Path, method: str
) -> None:
    opened = opened_generator(tmp_path, generator, "int4", method=method)
    options = RECIPES["int4"].options(method=method)
    shapes = weight_shapes(generator)
    estimate = RUNTIME.estimate(SizeRequest("int4", options, "generator", "cpu", shapes))
    assert opened.footprint().weights_bytes == pytest.approx(estimate.weights_bytes, rel=0.02)


def test_methods_that_measure_how_inputs_go_together_need_room(generator: Checkpoint) -> None:
    shapes = weight_shapes(generator)
    plain, measured = (
        RUNTIME.estimate(
            SizeRequest("int4", RECIPES["int4"].options(method=method), "generator", "cpu", shapes)
        ).preparing_bytes
        for method in ("rtn", "gptq")
    )
    # Six layers of 128 inputs and one of 192 in each of three.
    assert measured - plain == 3 * 4 * (6 * 128**2 + 192**2)
