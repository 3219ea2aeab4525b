"""SmoothQuant's factors, and ``smooth`` of the recipes that have it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from serving.machine.isa import multiplies_int8_exactly
from serving.recipes import RECIPES
from serving.runtimes.matrix import why_not
from serving.runtimes.torch.conversions.layer_inputs import LayerInputs
from serving.runtimes.torch.conversions.smoothing import smoothing_factors
from serving.runtimes.torch.conversions.static_scales import quantize_statically
from serving.runtimes.torch.kernels.int8_compact_linear import Int8CompactLinear
from serving.runtimes.torch.kernels.int8_linear import Int8Linear
from serving.seams import Combination, DeviceName, EngineKind
from tests.unit.runtimes.closeness import mean_cosine
from tests.unit.runtimes.tiny_generators import (
    MODELS,
    save_generator,
)
from tests.unit.runtimes.tiny_models import save_model
from tests.unit.runtimes.torch.conversions.answers import encoder_rows, generator_logits


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_factors_are_those_of_the_published_formula(alpha: float) -> None:
    torch.manual_seed(0)
    weight, rows = torch.randn(48, 64), torch.randn(100, 64) * torch.rand(64) * 20
    largest = rows.abs().amax(0)
    found = smoothing_factors(weight, largest, alpha).double()
    expected = largest.double() ** alpha / weight.abs().amax(0).double() ** (1 - alpha)
    ratios = found / expected
    # Up to one factor for all, which no product depends on.
    torch.testing.assert_close(ratios, ratios[:1].expand(64), rtol=1e-5, atol=0)
    assert float(found.log().mean()) == pytest.approx(0, abs=1e-5)


def test_all_of_the_spread_makes_inputs_alike() -> None:
    largest = torch.tensor([0.5, 7.0, 100.0, 0.0])
    factors = smoothing_factors(torch.randn(8, 4), largest, 1.0)
    smooth = largest[:3] / factors[:3]
    torch.testing.assert_close(smooth, smooth[:1].expand(3))
    assert factors.isfinite().all()  # of an input that stayed silent, too


def layer_and_rows() -> tuple[nn.Linear, Tensor]:
    """Two inputs are far larger than the others."""
    torch.manual_seed(0)
    rows = torch.randn(100, 64)
    rows[:, :2] *= 80
    return nn.Linear(64, 48), rows


def error_of(layer: nn.Module, linear: nn.Linear, rows: Tensor) -> float:
    expected = linear(rows).detach()
    return float(torch.linalg.norm(layer(rows) - expected) / torch.linalg.norm(expected))


@pytest.mark.parametrize("kind", [Int8Linear, Int8CompactLinear])
def test_a_layer_that_rounds_tokens_loses_less_of_its_small_inputs(
    kind: type[Int8Linear | Int8CompactLinear],
) -> None:
    linear, rows = layer_and_rows()
    factors = smoothing_factors(linear.weight.detach(), rows.abs().amax(0), 0.5)
    smooth, plain = kind.of(linear, factors=factors), kind.of(linear)
    assert error_of(smooth, linear, rows) < 0.5 * error_of(plain, linear, rows)
    again = kind.restore(smooth.settings(), smooth.stored_tensors())
    assert torch.equal(again(rows), smooth(rows))
    assert "shares" not in plain.stored_tensors()


def test_a_given_strength_is_taken_where_a_search_would_leave_inputs_alone() -> None:
    torch.manual_seed(0)
    linear, rows = nn.Linear(64, 48), torch.randn(100, 64)
    inputs = LayerInputs(rows.amin(0), rows.amax(0), [rows])
    assert quantize_statically(linear, inputs).shares is None
    smooth = quantize_statically(linear, inputs, strength=0.4)
    factors = smoothing_factors(linear.weight.detach(), rows.abs().amax(0), 0.4)
    assert smooth.shares is not None
    torch.testing.assert_close(smooth.shares, 1 / factors)


@pytest.mark.parametrize("recipe", ["int8-dynamic", "int8-static"])
def test_smooth_encoders_are_near_and_differ(tmp_path: Path, recipe: str) -> None:
    rows_of = partial(encoder_rows, tmp_path, save_model(tmp_path / "model", "embeddings"))
    expected, expectation = rows_of("fp32"), RECIPES[recipe].encoder
    assert expectation is not None
    found = [rows_of(recipe, smooth=strength) for strength in (None, 0.3, 0.7)]
    assert all(mean_cosine(rows, expected) >= expectation.cosine for rows in found)
    assert not np.array_equal(found[0], found[1])
    assert not np.array_equal(found[1], found[2])


def test_a_smooth_generator_is_near_and_differs(tmp_path: Path) -> None:
    checkpoint = save_generator(tmp_path / "model", **MODELS["llama"])
    logits_of = partial(generator_logits, tmp_path, checkpoint)
    expected, expectation = logits_of("fp32"), RECIPES["int8-dynamic"].generator
    assert expectation is not None
    plain, smooth = logits_of("int8-dynamic"), logits_of("int8-dynamic", smooth=0.5)
    # Random inputs have no outliers, so smoothing only widens the weights; where these keep 7 bits,
    # a step is twice as large: 0.9893 on AVX2.
    least = 1 - (1 - expectation.cosine) * (1 if multiplies_int8_exactly() else 2)
    assert mean_cosine(smooth, expected) >= least
    assert not np.array_equal(plain, smooth)


def test_only_a_given_strength_needs_data() -> None:
    dynamic, static = RECIPES["int8-dynamic"], RECIPES["int8-static"]
    assert not dynamic.calibrates(dynamic.options())
    assert dynamic.calibrates(dynamic.options(smooth=0))
    assert static.calibrates(static.options())


@pytest.mark.parametrize(
    ("runtime", "recipe", "kind", "device", "reason"),
    [
        ("torch", "int8-dynamic", "encoder", "cpu", None),
        ("torch", "int8-dynamic", "generator", "cpu", None),
        ("torch", "int8-static", "encoder", "cpu", None),
        ("torch", "int8-dynamic", "encoder", "cuda", "on CUDA, activations are rounded"),
        ("openvino", "int8-static", "encoder", "cpu", "on openvino, nncf smooths"),
        ("onnxruntime", "int8-static", "encoder", "cpu", "onnxruntime smooths int8-static"),
    ],
)
def test_runtimes_that_smooth_otherwise_refuse_it(
    runtime: str, recipe: str, kind: EngineKind, device: DeviceName, reason: str | None
) -> None:
    options = RECIPES[recipe].options(smooth=0.5)
    said = why_not(Combination(recipe, kind, device, "safetensors", options=options), runtime)
    assert said is None if reason is None else said is not None and reason in said
