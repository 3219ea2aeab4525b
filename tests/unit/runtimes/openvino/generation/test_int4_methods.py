"""``int4`` of a generator by each method of nncf, measured on calibration texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from numpy.typing import NDArray

from serving.checkpoint import weight_shapes
from serving.recipes import RECIPES
from serving.runtimes.openvino.generation.opening import open_decoder
from serving.runtimes.openvino.generation.preparing import prepare_generator
from serving.runtimes.openvino.opening import GRAPH
from serving.runtimes.openvino.runtime import RUNTIME
from serving.seams import Checkpoint, Segment, SizeRequest
from tests.unit.runtimes.tiny_generators import (
    MODELS,
    open_request,
    prepare_request,
    random_tokens,
    save_generator,
)

METHODS = ("rtn", "scale-estimation", "awq", "gptq")


Made = Callable[..., tuple[Path, tuple[str, ...]]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    config = {**MODELS["llama"], "num_hidden_layers": 1}
    return save_generator(tmp_path_factory.mktemp("llama"), **config)


@pytest.fixture(scope="module")
def made(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Gives the folder and the notes of an artifact, which is made once."""

    @cache
    def make(recipe: str, **options: Any) -> tuple[Path, tuple[str, ...]]:
        folder = tmp_path_factory.mktemp("artifact")
        request = prepare_request(recipe, checkpoint, folder, **options)
        calibrates = RECIPES[recipe].calibrates(request.options)
        texts = [
            {"input_ids": np.array([random_tokens(40, seed)], np.int64)} for seed in range(50, 54)
        ]
        prepared = prepare_generator(replace(request, calibration=texts if calibrates else []))
        return folder, prepared.notes

    return make


def logits_of(folder: Path, recipe: str = "int4") -> NDArray[np.float32]:
    decoder = open_decoder(open_request(recipe, folder))
    return decoder.step([Segment(0, 0, random_tokens(60, seed=3), 60)])


@pytest.mark.parametrize("method", METHODS)
def test_each_method_makes_other_numbers_in_the_same_form(made: Made, method: str) -> None:
    folder, notes = made("int4", method=method)
    assert notes == ("7 linear layers in u4 (groups of 64), 1 in u8",)
    found, expected = logits_of(folder), logits_of(made("fp32")[0], "fp32")
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    expectation = RECIPES["int4"].generator
    assert expectation is not None
    assert ((found * expected).sum(1) / lengths).mean() >= expectation.cosine
    if method != "rtn":
        assert not np.array_equal(found, logits_of(made("int4", method="rtn")[0]))


def test_symmetric_groups_have_no_zero_points(checkpoint: Checkpoint, made: Made) -> None:
    folder, notes = made("int4", method="rtn", symmetric=True)
    assert notes == ("7 linear layers in i4 (groups of 64), 1 in u8",)
    graph = openvino.Core().read_model(folder / GRAPH)
    kinds = [
        node.get_element_type().to_string()
        for node in graph.get_ops()
        if node.get_type_name() == "Constant"
    ]
    assert kinds.count("i4") == 7
    assert "u4" not in kinds
    options = RECIPES["int4"].options(symmetric=True)
    shapes = weight_shapes(checkpoint)
    estimate = RUNTIME.estimate(SizeRequest("int4", options, "generator", "cpu", shapes))
    size = open_decoder(open_request("int4", folder)).footprint().weights_bytes
    assert size == pytest.approx(estimate.weights_bytes, rel=0.02)


def test_methods_that_look_at_inputs_calibrate() -> None:
    recipe = RECIPES["int4"]
    for method in METHODS:
        assert recipe.calibrates(recipe.options(method=method)) == (method != "rtn")
    assert not recipe.calibrates(recipe.options())
