"""A linear layer of 4-bit weights in groups, for CPUs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from serving.runtimes.torch.kernels.int4_layout import pack_codes, unpack_centred
from serving.runtimes.torch.kernels.int4_rounding import round_to_int4
from serving.runtimes.torch.packed_sizes import INT4_BLOCK_OUT

# The 4-bit kernel's time grows with every row, expanding costs the same for any number: they meet
# between 64 and 96 rows on a CPU with AVX-512 and bfloat16 instructions.
MAX_KERNEL_ROWS = 64


class Int4Linear(nn.Module):
    """``y = x @ W4^T + b`` with ``W4 = (code - 8) * scale + offset`` per group of inputs.

    Few rows go through torch's 4-bit kernel; for more the weight is expanded at each call and
    multiplied as a whole. Both read the same single copy of the codes.

    Args:
        linear: The layer to convert, float32 (out, in).
        importance: float32 (in,), mean square of each input.
        group_size: 32, 64 or 128; divides ``in``.
        dtype: Type of inputs, outputs and of the expanded weight.
    """

    packed: Tensor
    scale_and_offset: Tensor
    bias: Tensor | None

    def __init__(
        self, linear: nn.Linear, importance: Tensor, group_size: int, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = linear.weight.shape
        self.group_size, self.dtype = group_size, dtype
        weight = linear.weight.detach()
        codes, scale, offset = round_to_int4(weight, importance, group_size)
        # (in / group, out, 2), as the kernel wants them.
        scale_and_offset = torch.stack([scale, offset], dim=2).transpose(0, 1)
        padding = -self.out_features % INT4_BLOCK_OUT
        if padding:
            codes = functional.pad(codes, (0, 0, 0, padding))
            scale_and_offset = functional.pad(scale_and_offset, (0, 0, 0, padding))
        self.register_buffer("packed", pack_codes(codes))
        self.register_buffer("scale_and_offset", scale_and_offset.contiguous())
        bias = None if linear.bias is None else linear.bias.detach().to(dtype, copy=True)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``dtype`` (..., in) to ``dtype`` (..., out)."""
        rows = x.reshape(-1, self.in_features).contiguous()
        y = self._by_kernel(rows) if len(rows) <= MAX_KERNEL_ROWS else rows @ self.expand()
        y = y[:, : self.out_features]
        if self.bias is not None:
            y = y + self.bias
        return y.view(*x.shape[:-1], self.out_features)

    def expand(self) -> Tensor:
        """Return the transposed weight in ``dtype``, (in, out rounded up to 64)."""
        weight = unpack_centred(self.packed, self.dtype).view(-1, self.group_size, len(self.packed))
        # Kept interleaved for the kernel; strided, they would make the next line six times slower.
        scale, offset = self.scale_and_offset.permute(2, 0, 1).contiguous().unsqueeze(2)
        return torch.addcmul(offset, weight, scale, out=weight).flatten(0, 1)

    def _by_kernel(self, rows: Tensor) -> Tensor:
        # With float32 inputs the kernel is thirty times slower.
        y: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            rows.bfloat16(), self.packed, self.group_size, self.scale_and_offset
        )
        return y.to(self.dtype)
