"""Logits over a shared table against float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from serving.machine.isa import multiplies_int8_exactly
from serving.runtimes.torch.footprint import weights_bytes
from serving.runtimes.torch.kernels.half_stored import Bf16StoredEmbedding
from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding
from serving.runtimes.torch.kernels.tied_head import Int8TiedHead, Int8WeightTiedHead, TiedHead
from serving.runtimes.torch.packed_sizes import int8_embedding_bytes

NEEDS_VNNI = pytest.mark.skipif(not multiplies_int8_exactly(), reason="8-bit sums saturate here")
SHAPES = [(320, 64), (1000, 128), (333, 576)]


def table_and_input(rows: int, width: int, seed: int) -> tuple[nn.Embedding, Tensor]:
    torch.manual_seed(seed)
    # Tokens of very different size, as in ``Int8Linear``'s tests.
    return nn.Embedding(rows, width), torch.randn(9, width) * 10 ** torch.linspace(-3, 3, 9)[
        :, None
    ]


def relative_error(found: Tensor, expected: Tensor) -> Tensor:
    """Of each row."""
    assert found.dtype == torch.float32
    difference = found.double() - expected
    return torch.linalg.norm(difference, dim=1) / torch.linalg.norm(expected, dim=1)


def dequantized(table: Int8Embedding) -> Tensor:
    return table.weight.double() * table.scale.double()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_float32(rows: int, width: int, seed: int) -> None:
    table, x = table_and_input(rows, width, seed)
    expected = x.double() @ table.weight.detach().double().T
    assert relative_error(TiedHead(table.requires_grad_(False))(x), expected).max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_bfloat16(rows: int, width: int, seed: int, dtype: torch.dtype) -> None:
    embedding, x = table_and_input(rows, width, seed)
    table, x = Bf16StoredEmbedding.of(embedding), x.to(dtype)
    expected = x.double() @ table.weight.double().T
    # The input, where it comes in float32, and the result keep 8 bits: each is off by 2^-8 of
    # itself at most, and by less over a row.
    assert relative_error(TiedHead(table)(x), expected).max() < 2**-8


@NEEDS_VNNI
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_int8(rows: int, width: int, seed: int) -> None:
    embedding, x = table_and_input(rows, width, seed)
    table = Int8Embedding.of(embedding, torch.float32)
    largest = x.double().abs().amax(1, keepdim=True)
    codes = (x.double() / largest * 127).round()
    expected = codes / 127 * largest @ dequantized(table).T
    found = Int8TiedHead(table)(x)
    # float32 may round one input of a row to the other side of a half: one step, times one weight.
    one_step = largest / 127 * dequantized(table).abs().amax()
    off = (found.double() - expected).abs()
    assert (off <= one_step + 1e-5 * largest).all()
    assert (off <= 0.01 * one_step + 1e-5 * largest).double().mean() > 0.75
    # And it is worth something: half a step on each input, uniform, is 0.29 of a step on average.
    float_logits = x.double() @ embedding.weight.detach().double().T
    assert relative_error(found, float_logits).max() < 0.02


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_int8_weights(rows: int, width: int, seed: int) -> None:
    embedding, x = table_and_input(rows, width, seed)
    table = Int8Embedding.of(embedding, torch.bfloat16)
    expected = x.bfloat16().double() @ dequantized(table).T
    # Scale and result keep 8 bits each, as above.
    assert relative_error(Int8WeightTiedHead(table)(x), expected).max() < 2**-8


@pytest.mark.parametrize("kind", [TiedHead, Int8TiedHead, Int8WeightTiedHead])
def test_rows_of_zeros_give_zeros(kind: type[nn.Module]) -> None:
    embedding, x = table_and_input(320, 64, seed=0)
    embedding.requires_grad_(False)
    table = embedding if kind is TiedHead else Int8Embedding.of(embedding, torch.float32)
    x[4] = 0
    logits = kind(table)(x)
    assert torch.isfinite(logits).all()
    assert not logits[4].any()
    assert logits[3].any()


@NEEDS_VNNI
@pytest.mark.parametrize("count", [1, 2, 7])
def test_int8_logits_do_not_depend_on_the_batch(count: int) -> None:
    embedding, x = table_and_input(1000, 576, seed=1)
    head = Int8TiedHead(Int8Embedding.of(embedding, torch.float32))
    assert torch.equal(head(x)[:count], head(x[:count]))


@pytest.mark.parametrize("kind", [pytest.param(Int8TiedHead, marks=NEEDS_VNNI), Int8WeightTiedHead])
def test_int8_sums_do_not_saturate(kind: type[nn.Module]) -> None:
    embedding = nn.Embedding(64, 512)
    nn.init.constant_(embedding.weight, 0.5)
    logits = kind(Int8Embedding.of(embedding, torch.float32))(torch.ones(3, 512))
    # All products at their largest; bfloat16 keeps 8 bits of scale and result.
    torch.testing.assert_close(logits, torch.full((3, 64), 256.0), rtol=2**-7, atol=0)


def test_the_table_is_counted_and_saved_once() -> None:
    embedding = nn.Embedding(320, 64)
    plain = nn.ModuleList([embedding, TiedHead(embedding)])
    assert weights_bytes(plain) == 320 * 64 * 4
    half = Bf16StoredEmbedding.of(embedding)
    assert weights_bytes(nn.ModuleList([half, TiedHead(half)])) == 320 * 64 * 2
    table = Int8Embedding.of(embedding, torch.float32)
    pair = nn.ModuleList([table, Int8TiedHead(table)])
    assert weights_bytes(pair) == int8_embedding_bytes((320, 64))
    saved = pair.state_dict()
    assert len({tensor.data_ptr() for tensor in saved.values()}) == 2
    # The kernel wants the scales in bfloat16 too.
    with_weights = nn.ModuleList([table, Int8WeightTiedHead(table)])
    assert weights_bytes(with_weights) == int8_embedding_bytes((320, 64)) + 320 * 2
