"""HQQ's checkpoints, whose layers carry their own settings as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from serving.quantized_checkpoints.form import Integers, QuantizedForm, Shapes

if TYPE_CHECKING:
    from torch import Tensor

BITS = (1, 2, 3, 4, 8)


def why_not(config: Mapping[str, Any]) -> str | None:
    """Say that scales and zeros that are quantized themselves are not read."""
    said = config.get("quant_config") or {}
    # Settings of all layers, or of each kind of layer by its name.
    settings = [said, *(one for one in said.values() if isinstance(one, dict))]
    if any(one.get("scale_quant_params") or one.get("zero_quant_params") for one in settings):
        return "its scales or zeros are quantized themselves; plain ones are read"
    return None


def integers(config: Mapping[str, Any]) -> Integers | None:
    """There are none: its zeros are no whole numbers."""
    return None


def shape(parts: Shapes, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Outputs and inputs of a layer, which its header does not tell, all in one row.

    A scale stands for each group, of the size that is usual.
    """
    return 1, prod(parts["scale"]) * int((config.get("quant_config") or {}).get("group_size", 64))


def read(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Tensor:
    """Read a layer: (codes - zeros) × scales in groups, zeros no whole numbers.

    Raises:
        ValueError: It has another number of bits than is read.
    """
    import torch

    bits, packed = int(tensors["nbits"]), tensors["W_q"]
    if bits not in BITS:
        raise ValueError(f"nbits is {bits}; {', '.join(map(str, BITS))} are read")
    # Rows that lie above each other share a number, the first of them in its highest bits.
    shared = 10 if bits == 3 else 8 // bits
    shifts = range((shared - 1) * bits, -1, -bits)
    codes = torch.cat([packed >> shift & (1 << bits) - 1 for shift in shifts])
    size, group = tuple(tensors["shape"].tolist()), int(tensors["group_size"])
    rows = group if int(tensors["axis"]) == 0 else prod(size) // group
    scales, zeros = tensors["scale"].float(), tensors["zero"].float()
    return ((codes[:rows] - zeros) * scales).reshape(size)


FORM = QuantizedForm(
    marks=("W_q",),
    parts=(
        *("W_q", "scale", "zero", "shape", "nbits", "group_size", "axis", "packing"),
        *("unpack_view_dtype", "view_as_float", "quant_scale", "quant_zero", "compute_dtype"),
        *("offload_meta", "encoded_state_dict", "stores_quant_config", "channel_wise"),
        *("optimize", "round_zero"),
    ),
    why_not=why_not,
    integers=integers,
    shape=shape,
    read=read,
)
