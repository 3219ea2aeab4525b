"""Linear layers for GPUs, on the CPU's form of the same operations, against their formulas."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from serving.runtimes.torch.cuda.linear_layers import (
    LARGEST_FP8,
    CudaFp8Linear,
    CudaInt4Linear,
    CudaInt8Linear,
)
from serving.runtimes.torch.kernels.int4_rounding import round_to_int4

IN, OUT = 128, 80


@pytest.fixture(params=[True, False], ids=["bias", "no-bias"])
def linear(request: pytest.FixtureRequest) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(IN, OUT, bias=request.param).requires_grad_(False)
    layer.weight[3] = 0  # an output without a scale of its own
    layer.weight[5, 7] = 2  # and one with an outlier
    return layer


def inputs(*shape: int) -> Tensor:
    x = torch.randn(*shape, IN, generator=torch.Generator().manual_seed(1)) * 3
    x.view(-1, IN)[0, 9] = 60  # a token whose scale is its own
    x.view(-1, IN)[-1] = 0
    return x.bfloat16()


def with_bias(y: Tensor, linear: nn.Linear) -> Tensor:
    return y if linear.bias is None else y + linear.bias.bfloat16()


def rounded_to_int8(x: Tensor) -> Tensor:
    """float64, every row rounded to 127 steps of its own."""
    scale = x.double().abs().amax(1, keepdim=True) / 127
    return torch.where(scale > 0, (x.double() / scale).round() * scale, 0.0)


def rounded_to_fp8(x: Tensor) -> Tensor:
    scale = x.double().abs().amax(1, keepdim=True) / LARGEST_FP8
    codes = (x.double() / scale).nan_to_num().float().to(torch.float8_e4m3fn).double()
    return torch.where(scale > 0, codes * scale, 0.0)


@pytest.mark.parametrize("shape", [(1,), (2, 5), (40,)])
@pytest.mark.parametrize(
    ("make", "rounded", "tolerance"),
    [
        # The one step of a last bfloat16 digit; codes that float32 rounds otherwise at a tie.
        (CudaInt8Linear.of, rounded_to_int8, 2**-8),
        (CudaFp8Linear.of, rounded_to_fp8, 2**-7),
    ],
    ids=["int8", "fp8"],
)
def test_eight_bits_are_the_product_of_what_was_rounded(
    linear: nn.Linear,
    make: Callable[[nn.Linear, str], nn.Module],
    rounded: Callable[[Tensor], Tensor],
    tolerance: float,
    shape: tuple[int, ...],
) -> None:
    x = inputs(*shape)
    y = make(linear, "cpu")(x)
    assert y.dtype == torch.bfloat16
    assert y.shape == (*shape, OUT)
    products = rounded(x.view(-1, IN)) @ rounded(linear.weight).t()
    wanted = with_bias(products, linear).view(*shape, OUT)
    assert (y - wanted).abs().max() <= tolerance * wanted.abs().max()


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("shape", [(1,), (2, 5), (40,)])
def test_four_bits_are_the_product_with_what_was_rounded(
    linear: nn.Linear, group_size: int, shape: tuple[int, ...]
) -> None:
    x = inputs(*shape)
    y = CudaInt4Linear.of(linear, group_size, "cpu")(x)
    assert y.dtype == torch.bfloat16
    assert y.shape == (*shape, OUT)
    codes, scale, offset = round_to_int4(linear.weight, torch.ones(IN), group_size)
    expanded = (codes.view(OUT, -1, group_size) - 8) * scale.double()[..., None]
    weight = (expanded + offset[..., None]).flatten(1)
    wanted = with_bias(x.double() @ weight.t(), linear)
    # Sums of bfloat16 products, and a last bfloat16 digit.
    assert (y - wanted).abs().max() <= 2**-7 * wanted.abs().max()


@pytest.mark.parametrize("make", [CudaInt8Linear.of, CudaFp8Linear.of], ids=["int8", "fp8"])
def test_a_token_does_not_depend_on_its_company(
    linear: nn.Linear, make: Callable[[nn.Linear, str], nn.Module]
) -> None:
    x, layer = inputs(40), make(linear, "cpu")
    alone = torch.cat([layer(row) for row in x.split(1)])
    # Sums of the same products; their order may be another one.
    torch.testing.assert_close(layer(x), alone, rtol=2**-7, atol=1e-6)
