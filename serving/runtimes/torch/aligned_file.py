"""Write safetensors files whose tensors begin where kernels may read them from the mapped file.

The format puts tensors one after the other, at any multiple of eight bytes. Some of torch's kernels
load with instructions that fault unless an address is a multiple of 16 (``_weight_int8pack_mm`` on
AVX-512 is one), and vectors that cross cache lines are slower everywhere. So what is missing to the
next multiple of 64 is filled with tensors of bytes that nobody reads, which the format allows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ALIGNMENT = 64

FILLER = " filler"
"""Follows the name of the tensor that a filler follows; no attribute of a module ends so."""

_TYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.bool: "BOOL",
}
"""As the format spells them."""


def save_aligned(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write tensors on the CPU, each at a multiple of ``ALIGNMENT`` bytes.

    They may share memory; each is written by itself.
    """
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = _entry(_TYPE_NAMES[tensor.dtype], list(tensor.shape), begin, end)
        if fill := -end % ALIGNMENT:
            header[name + FILLER] = _entry("U8", [fill], end, end + fill)
            end += fill
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % ALIGNMENT)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little"))
        out.write(text)
        for tensor in tensors.values():
            numbers = tensor.detach().contiguous().flatten()
            out.write(numbers.view(torch.uint8).numpy().data)
            out.write(bytes(-tensor.nbytes % ALIGNMENT))


def _entry(kind: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
