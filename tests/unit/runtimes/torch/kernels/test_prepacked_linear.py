from __future__ import annotations

import pytest
import torch
from torch import nn

from serving.machine.isa import multiplies_bf16
from serving.runtimes.torch.footprint import weights_bytes
from serving.runtimes.torch.kernels.prepacked_linear import PrepackedLinear

SHAPES = [(64, 64), (576, 960), (1536, 64), (100, 33)]

# float32 rounds each partial sum: over 1,536 terms a few times 2^-24. bfloat16 sums in float32 too
# and keeps 8 bits of the result, which is off by 2^-8 of itself at most, and by less over a row:
# 0.0022 in twenty seeds.
ERROR = {torch.float32: 1e-6, torch.bfloat16: 0.0025}

NEEDS_BF16 = pytest.mark.skipif(
    not multiplies_bf16(), reason="oneDNN may refuse bfloat16 here, and recipe bf16 uses float32"
)
DTYPES = [torch.float32, pytest.param(torch.bfloat16, marks=NEEDS_BF16)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 5, 32, 100])
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
@pytest.mark.parametrize("has_bias", [True, False])
def test_it_is_a_linear_layer(
    inputs: int, outputs: int, rows: int, has_bias: bool, dtype: torch.dtype
) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        linear = nn.Linear(inputs, outputs, has_bias).to(dtype)
        x = torch.randn(rows, inputs).to(dtype)
        expected = x.double() @ linear.weight.double().T
        if has_bias:
            expected = expected + linear.bias.double()
        y = PrepackedLinear.of(linear)(x)
        assert y.dtype == dtype
        error = torch.linalg.norm(y.double() - expected) / torch.linalg.norm(expected)
        assert error < ERROR[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_it_saves_is_the_weight(dtype: torch.dtype) -> None:
    linear = nn.Linear(192, 70).to(dtype)
    saved = PrepackedLinear.of(linear).stored_tensors()
    assert set(saved) == {"weight", "bias"}
    assert torch.equal(saved["weight"], linear.weight)
    assert torch.equal(saved["bias"], linear.bias)


@pytest.mark.parametrize("dtype", DTYPES)
def test_its_size_is_counted(dtype: torch.dtype) -> None:
    layer = PrepackedLinear.of(nn.Linear(192, 64).to(dtype))
    assert weights_bytes(layer) == (192 * 64 + 64) * dtype.itemsize


def test_it_keeps_nothing_of_the_layer() -> None:
    linear = nn.Linear(64, 64)
    layer, x = PrepackedLinear.of(linear), torch.randn(2, 64)
    before = layer(x)
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.zero_()
    assert torch.equal(layer(x), before)
