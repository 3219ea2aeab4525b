"""The order in which torch's CPU kernel for 4-bit weights keeps its codes, and the way back.

``aten._convert_weight_to_int4pack_for_cpu`` cuts the outputs into blocks. For each block and each
input it writes half a block of bytes: byte ``j`` holds output ``j`` in its low nibble and output
``block / 2 + j`` in its high one. The block is four vectors of the instruction set for which torch
picks its kernels (``aten/src/ATen/native/cpu/int4mm_kernel.cpp``), so it is probed, not assumed.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from serving.errors import ConfigError
from serving.runtimes.torch.packed_sizes import INT4_BLOCK_OUT

KNOWN_BLOCKS = (INT4_BLOCK_OUT, 32)
"""Outputs per block with AVX-512 and with AVX2."""


def pack_codes(codes: Tensor) -> Tensor:
    """Pack codes 0 … 15, int32 (out, in), out a multiple of 64; returns uint8 (out, in / 2)."""
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    return packed


def unpack_centred(packed: Tensor, dtype: torch.dtype) -> Tensor:
    """Undo ``pack_codes``, transposed and less 8: ``dtype`` (in, out), values -8 … 7."""
    return _unpack(packed, dtype, kernel_block())


@cache
def kernel_block() -> int:
    """Find out how many outputs this CPU's kernel packs together.

    Raises:
        ConfigError: The order is none of the known ones, as on a CPU without AVX2, where the
            kernel would be many times slower than float32 anyway.
    """
    seeded = torch.Generator().manual_seed(0)
    probe = torch.randint(16, (2 * INT4_BLOCK_OUT, 32), dtype=torch.int32, generator=seeded)
    packed, wanted = pack_codes(probe), (probe - 8).t().to(torch.int8)
    for block in KNOWN_BLOCKS:
        if torch.equal(_unpack(packed, torch.int8, block), wanted):
            return block
    raise ConfigError("recipe int4 needs a CPU with AVX2 or AVX-512, for torch's 4-bit kernel")


def _unpack(packed: Tensor, dtype: torch.dtype, block: int) -> Tensor:
    outputs, inputs = packed.shape[0], packed.shape[1] * 2
    # Flipping a nibble's top bit turns code into code - 8 in two's complement, which arithmetic
    # shifts then extend: cheaper than a subtraction on the expanded weight.
    signed = packed.view(torch.int8).bitwise_xor(-120).view(-1, inputs, block // 2)
    centred = torch.empty(inputs, outputs // block, 2, block // 2, dtype=dtype)
    by_block = centred.transpose(0, 1)
    by_block[:, :, 1] = signed.bitwise_right_shift(4)
    by_block[:, :, 0] = signed.bitwise_left_shift_(4).bitwise_right_shift_(4)
    return centred.view(inputs, outputs)
