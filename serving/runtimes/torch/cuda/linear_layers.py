"""Linear layers of 8- and 4-bit weights on GPUs, on the kernels that torch itself brings.

Each runs on the CPU as well, where torch has the same operation, and where tests hold it to its
formula.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from serving.runtimes.torch.kernels.int4_layout import pack_codes
from serving.runtimes.torch.kernels.int4_rounding import round_to_int4
from serving.runtimes.torch.packed_sizes import INT4_BLOCK_OUT

LEAST = 1e-30
"""Divides where a row or an output is all zeros."""

LEAST_ROWS = 32
"""``torch._int_mm`` takes more than 16 rows on a GPU; fewer are filled up."""

LARGEST_FP8 = 448.0
"""Of float8 with 4 bits of exponent and 3 of mantissa (E4M3)."""


class CudaInt8Linear(nn.Module):
    """``y = s_x * s_w * (q(x / s_x) @ W8^T) + b``, 8 bits with a scale per token and per output.

    Args:
        weight: int8 (out, in), both multiples of ``CUDA_ALIGNED``.
        scale: float32 (out,).
        bias: bfloat16 (out,).
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    @classmethod
    def of(cls, linear: nn.Linear, device: str) -> Self:
        """Round a float32 layer on a device, for bfloat16; ``scale = max|w| / 127`` by output."""
        weight = linear.weight.detach().to(device)
        scale = weight.abs().amax(1).div_(127).clamp_min_(LEAST)
        codes = (weight / scale[:, None]).round_().to(torch.int8)
        return cls(codes, scale, _bias(linear, device))

    def forward(self, x: Tensor) -> Tensor:
        """Map bfloat16 (..., in) to bfloat16 (..., out)."""
        rows = x.reshape(-1, x.shape[-1]).float()
        scale = rows.abs().amax(1, keepdim=True).div_(127).clamp_min_(LEAST)
        codes = (rows / scale).round_().to(torch.int8)
        missing = max(LEAST_ROWS - len(rows), 0)
        products = torch._int_mm(functional.pad(codes, (0, 0, 0, missing)), self.weight.t())
        y = products[: len(rows)].float().mul_(scale).mul_(self.scale).to(x.dtype)
        return _finish(y, self.bias, x)


class CudaFp8Linear(nn.Module):
    """Likewise in float8 (E4M3) in place of int8: ``s = max / 448``; Hopper has such kernels.

    Args:
        weight: float8_e4m3fn (out, in), both multiples of ``CUDA_ALIGNED``.
        scale: float32 (1, out).
        bias: bfloat16 (out,).
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    @classmethod
    def of(cls, linear: nn.Linear, device: str) -> Self:
        """Round a float32 layer on a device."""
        weight = linear.weight.detach().to(device)
        scale = weight.abs().amax(1, keepdim=True).div_(LARGEST_FP8).clamp_min_(LEAST)
        codes = (weight / scale).to(torch.float8_e4m3fn)
        return cls(codes, scale.t().contiguous(), _bias(linear, device))

    def forward(self, x: Tensor) -> Tensor:
        """Map bfloat16 (..., in) to bfloat16 (..., out)."""
        rows = x.reshape(-1, x.shape[-1]).float()
        scale = rows.abs().amax(1, keepdim=True).div_(LARGEST_FP8).clamp_min_(LEAST)
        y: Tensor = torch._scaled_mm(
            (rows / scale).to(torch.float8_e4m3fn),
            self.weight.t(),
            scale_a=scale,
            scale_b=self.scale,
            out_dtype=torch.bfloat16,
        )
        return _finish(y, self.bias, x)


class CudaInt4Linear(nn.Module):
    """``y = x @ W4^T + b`` with ``W4 = (code - 8) * scale + offset`` per group of inputs.

    Args:
        packed: Codes in the layout of torch's 4-bit kernel for the device that it is on.
        scale_and_offset: bfloat16 (in / group, out rounded up to ``INT4_BLOCK_OUT``, 2).
        bias: bfloat16 (out,).
        out_features: Outputs without the padding.
        group_size: Inputs that share a scale.
    """

    packed: Tensor
    scale_and_offset: Tensor
    bias: Tensor | None

    def __init__(
        self,
        packed: Tensor,
        scale_and_offset: Tensor,
        bias: Tensor | None,
        out_features: int,
        group_size: int,
    ) -> None:
        super().__init__()
        self.out_features, self.group_size = out_features, group_size
        self.register_buffer("packed", packed)
        self.register_buffer("scale_and_offset", scale_and_offset)
        self.register_buffer("bias", bias)

    @classmethod
    def of(cls, linear: nn.Linear, group_size: int, device: str) -> Self:
        """Round a float32 layer on a device, every input counting alike.

        ``group_size`` is 32, 64 or 128, and divides ``in``.
        """
        weight = linear.weight.detach().to(device)
        codes, scale, offset = round_to_int4(weight, weight.new_ones(weight.shape[1]), group_size)
        scale_and_offset = torch.stack([scale, offset], dim=2).transpose(0, 1)
        padding = (0, 0, 0, -linear.out_features % INT4_BLOCK_OUT)
        return cls(
            _pack(functional.pad(codes, padding)),
            functional.pad(scale_and_offset, padding).contiguous(),
            _bias(linear, device),
            linear.out_features,
            group_size,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map bfloat16 (..., in) to bfloat16 (..., out)."""
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        kernels = torch.ops.aten
        multiply = kernels._weight_int4pack_mm if x.is_cuda else kernels._weight_int4pack_mm_for_cpu
        y = multiply(rows, self.packed, self.group_size, self.scale_and_offset)
        return _finish(y[:, : self.out_features], self.bias, x)


def _pack(codes: Tensor) -> Tensor:
    """Codes 0 … 15, int32 (out, in), as the kernel of their device reads them."""
    if not codes.is_cuda:
        return pack_codes(codes)
    # Two inputs a byte, the first in the high nibble; a tile is 16 inputs wide, and the kernel
    # takes as many of them at once as divide the inputs.
    pairs = (codes[:, ::2] * 16 + codes[:, 1::2]).to(torch.uint8)
    tiles = next(n for n in (8, 4, 2) if codes.shape[1] % (16 * n) == 0)
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack(pairs, tiles)
    return packed


def _bias(linear: nn.Linear, device: str) -> Tensor | None:
    return None if linear.bias is None else linear.bias.detach().to(device, torch.bfloat16)


def _finish(y: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    y = y if bias is None else y + bias
    return y.view(*x.shape[:-1], -1)
