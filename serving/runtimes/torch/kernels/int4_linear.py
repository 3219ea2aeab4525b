"""A linear layer of 4-bit weights in groups, for CPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from serving.errors import ConfigError
from serving.runtimes.torch.kernels.int4_codes import Int4Codes
from serving.runtimes.torch.kernels.int4_layout import kernel_block, pack_codes, unpack_centred
from serving.runtimes.torch.kernels.int4_rounding import round_to_int4
from serving.runtimes.torch.kernels.kernel_module import KernelModule, Setting
from serving.runtimes.torch.number_types import name_of, type_of
from serving.runtimes.torch.packed_sizes import INT4_BLOCK_OUT

# The 4-bit kernel's time grows with every row, expanding costs the same for any number: they meet
# between 64 and 96 rows on a CPU with AVX-512 and bfloat16 instructions.
MAX_KERNEL_ROWS = 64


class Int4Linear(KernelModule):
    """``y = (x * shares) @ W4^T + b``, ``W4 = (code - 8) * scale + offset`` by groups of inputs.

    Few rows go through torch's 4-bit kernel; for more the weight is expanded at each call and
    multiplied as a whole. Both read the same single copy of the codes.

    Args:
        packed: Codes as ``pack_codes`` lays them out, uint8 (out rounded up to 64, in / 2).
        scale_and_offset: bfloat16 (in / group, out rounded up to 64, 2), as the kernel wants them.
        bias: (out,), of the type ``dtype``.
        shares: (in,), likewise; None multiplies inputs by nothing.
        out_features: Outputs without the padding.
        dtype: Name of the type of inputs, outputs and of the expanded weight.
    """

    packed: Tensor
    scale_and_offset: Tensor
    bias: Tensor | None
    shares: Tensor | None

    def __init__(
        self,
        packed: Tensor,
        scale_and_offset: Tensor,
        bias: Tensor | None = None,
        shares: Tensor | None = None,
        *,
        out_features: int,
        dtype: str,
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = out_features, packed.shape[1] * 2
        self.group_size = self.in_features // len(scale_and_offset)
        self.dtype = type_of(dtype)
        self.register_buffer("packed", packed)
        self.register_buffer("scale_and_offset", scale_and_offset)
        self.register_buffer("bias", bias)
        self.register_buffer("shares", shares)

    @classmethod
    def of(cls, linear: nn.Linear, importance: Tensor, group_size: int, dtype: torch.dtype) -> Self:
        """Round the weight of a float32 layer (out, in).

        Args:
            linear: The layer.
            importance: float32 (in,), mean square of each input.
            group_size: 32, 64 or 128; divides ``in``.
            dtype: Type of inputs and outputs.
        """
        rounded = Int4Codes(*round_to_int4(linear.weight.detach(), importance, group_size))
        return cls.of_codes(rounded, linear.bias, dtype)

    @classmethod
    def of_codes(cls, rounded: Int4Codes, bias: Tensor | None, dtype: torch.dtype) -> Self:
        """Pack a weight that was rounded.

        Args:
            rounded: In groups of 32, 64 or 128 inputs.
            bias: float32 (out,), or None.
            dtype: Type of inputs and outputs.
        """
        codes, outputs = rounded.codes, len(rounded.codes)
        scale_and_offset = torch.stack([rounded.scales, rounded.offsets], dim=2).transpose(0, 1)
        padding = -outputs % INT4_BLOCK_OUT
        if padding:
            codes = functional.pad(codes, (0, 0, 0, padding))
            scale_and_offset = functional.pad(scale_and_offset, (0, 0, 0, padding))
        return cls(
            pack_codes(codes),
            scale_and_offset.contiguous(),
            None if bias is None else bias.detach().to(dtype, copy=True),
            None if rounded.shares is None else rounded.shares.to(dtype),
            out_features=outputs,
            dtype=name_of(dtype),
        )

    def settings(self) -> dict[str, Setting]:
        return {
            "out_features": self.out_features,
            "dtype": name_of(self.dtype),
            "kernel_block": kernel_block(),
        }

    @classmethod
    def restore(cls, settings: Mapping[str, Setting], tensors: Mapping[str, Tensor]) -> Self:
        arguments = dict(settings)
        block = arguments.pop("kernel_block")
        if block != kernel_block():
            raise ConfigError(
                f"its int4 weights lie in blocks of {block} outputs, this CPU's kernel reads "
                f"blocks of {kernel_block()}: prepare it on a machine of this kind"
            )
        return super().restore(arguments, tensors)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out), both of the module's type."""
        if self.shares is not None:
            x = x * self.shares
        rows = x.reshape(-1, self.in_features).contiguous()
        y = self._by_kernel(rows) if len(rows) <= MAX_KERNEL_ROWS else rows @ self.expand()
        y = y[:, : self.out_features]
        if self.bias is not None:
            y = y + self.bias
        return y.view(*x.shape[:-1], self.out_features)

    def expand(self) -> Tensor:
        """Return the transposed weight in the module's type, (in, out rounded up to 64)."""
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
