"""``int8-outlier``: the largest inputs of each layer in float, and the others in 8 bits."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from serving.errors import ConfigError
from serving.machine.isa import multiplies_int8_exactly
from serving.recipes import RECIPES
from serving.runtimes.matrix import why_not
from serving.runtimes.torch.kernels.int8_compact_linear import Int8CompactLinear
from serving.runtimes.torch.kernels.int8_linear import Int8Linear
from serving.runtimes.torch.kernels.outlier_linear import OutlierLinear, largest_columns
from serving.runtimes.torch.packed_sizes import outlier_bytes
from serving.seams import Combination
from tests.unit.runtimes.closeness import mean_cosine
from tests.unit.runtimes.tiny_generators import MODELS, save_generator
from tests.unit.runtimes.tiny_models import save_model
from tests.unit.runtimes.torch.conversions.answers import encoder_rows, generator_logits

LARGE = torch.tensor([3, 17])


def layer_and_rows(bias: bool = True) -> tuple[nn.Linear, Tensor]:
    """Two inputs are far larger than the others."""
    torch.manual_seed(0)
    rows = torch.randn(100, 128)
    rows[:, LARGE] *= 80
    return nn.Linear(128, 48, bias), rows


def by_hand(linear: nn.Linear, rows: Tensor, steps: int) -> Tensor:
    """The published product in float64: rounded where inputs are small, whole where they are not.

    Rows are rounded to 127 steps of their own largest small input, weights to as many as the CPU
    multiplies exactly (LLM.int8(), arXiv:2208.07339, equation 8).
    """
    weight, x = linear.weight.detach().double(), rows.double()
    is_small = torch.ones(128, dtype=torch.bool)
    is_small[LARGE] = False
    small, small_weight = x[:, is_small], weight[:, is_small]
    row_scale = small.abs().amax(1, keepdim=True) / 127
    weight_scale = small_weight.abs().amax(1, keepdim=True) / steps
    rounded = (small / row_scale).round() @ (small_weight / weight_scale).round().T
    y = rounded * row_scale * weight_scale.T + x[:, LARGE] @ weight[:, LARGE].T
    return y if linear.bias is None else y + linear.bias.detach().double()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("is_compact", [True, False])
@pytest.mark.parametrize("exact", [True, False])
def test_a_product_is_that_of_the_published_formula(
    is_compact: bool, bias: bool, exact: bool
) -> None:
    linear, rows = layer_and_rows(bias)
    if exact and not multiplies_int8_exactly():
        with pytest.raises(ConfigError, match="sums products of 7 bits"):
            OutlierLinear.of(linear, LARGE, is_compact, exact)
        return
    layer = OutlierLinear.of(linear, LARGE, is_compact, exact)
    expected = by_hand(linear, rows, 127 if exact else 64)
    # A number between two steps may be rounded to either: one step of a row's small inputs times
    # a weight of at most 1 / sqrt(128), of which a row has few.
    torch.testing.assert_close(layer(rows).double(), expected, rtol=0, atol=0.02)
    again = OutlierLinear.restore(layer.settings(), layer.stored_tensors())
    assert torch.equal(again(rows), layer(rows))


@pytest.mark.parametrize(("is_compact", "kind"), [(True, Int8CompactLinear), (False, Int8Linear)])
def test_small_inputs_lose_a_tenth_of_what_they_lose_beside_large_ones(
    is_compact: bool, kind: type[Int8Linear | Int8CompactLinear]
) -> None:
    linear, rows = layer_and_rows()
    expected = linear(rows).detach()
    parted = OutlierLinear.of(linear, LARGE, is_compact)(rows)
    whole = kind.of(linear)(rows)
    assert (parted - expected).norm() < 0.1 * (whole - expected).norm()


@pytest.mark.parametrize("is_compact", [True, False])
def test_a_row_does_not_depend_on_its_company(is_compact: bool) -> None:
    linear, rows = layer_and_rows()
    layer = OutlierLinear.of(linear, LARGE, is_compact)
    alone = torch.cat([layer(row[None]) for row in rows])
    # Float sums of two columns, in another order at most.
    torch.testing.assert_close(layer(rows), alone, rtol=1e-5, atol=1e-5)


def test_the_largest_inputs_are_chosen() -> None:
    largest = torch.tensor([0.5, 9.0, 1.0, 0.0, 8.0, 3.0])
    assert largest_columns(largest, 0.3).tolist() == [1, 4]
    assert largest_columns(largest, 0.001).tolist() == [1]


def test_what_the_columns_take_is_counted() -> None:
    linear, _ = layer_and_rows()
    layer = OutlierLinear.of(linear, LARGE, is_compact=False)
    assert layer.columns.nbytes + layer.column_weight.nbytes == outlier_bytes((48, 128), 2 / 128)


def test_an_encoder_is_nearer_than_in_int8_dynamic(tmp_path: Path) -> None:
    rows_of = partial(encoder_rows, tmp_path, save_model(tmp_path / "model", "embeddings"))
    expected = rows_of("fp32")
    plain, parted = rows_of("int8-dynamic"), rows_of("int8-outlier", share=0.1)
    assert mean_cosine(plain, expected) < mean_cosine(parted, expected)


def test_a_generator_is_near_and_differs(tmp_path: Path) -> None:
    checkpoint = save_generator(tmp_path / "model", **MODELS["llama"])
    logits_of = partial(generator_logits, tmp_path, checkpoint)
    expected, expectation = logits_of("fp32"), RECIPES["int8-outlier"].generator
    assert expectation is not None
    plain, parted = logits_of("int8-dynamic"), logits_of("int8-outlier")
    assert mean_cosine(parted, expected) >= expectation.cosine
    assert not np.array_equal(plain, parted)


def test_a_gpu_refuses_it() -> None:
    said = why_not(Combination("int8-outlier", "encoder", "cuda", "safetensors"), "torch")
    assert said == "on torch, int8-outlier runs on the CPU only"
