"""HQQ's checkpoints, whose layers carry their own settings as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from serving.quantized_checkpoints.form import Integers, QuantizedForm, Shapes

if TYPE_CHECKING:
    from torch import Tensor

BITS = (1, 2, 3, 4, 8)

USUAL_GROUP = 64


def why_not(config: Mapping[str, Any]) -> str | None:
    """Say that scales and zeros that are quantized themselves are not read."""
    settings = _settings(config)
    if any(one.get("scale_quant_params") or one.get("zero_quant_params") for one in settings):
        return "its scales or zeros are quantized themselves; plain ones are read"
    return None


def integers(config: Mapping[str, Any]) -> Integers | None:
    """There are none: its zeros are no whole numbers."""
    return None


def shape(parts: Shapes, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Outputs and inputs of a layer, which its header does not tell, all in one row.

    A scale stands for each group. A group along the inputs is a row of what is packed; the size of
    one along the outputs is in the configuration alone, and taken to be the first that is there.
    """
    scales, weights = parts["scale"], _weights(config)
    if scales[-1] == 1 and not any(one.get("view_as_float") for one in weights):
        return 1, prod(scales) * parts["W_q"][-1]
    sizes = [size for one in weights if (size := one.get("group_size"))]
    return 1, prod(scales) * int(sizes[0] if sizes else USUAL_GROUP)


def read(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Tensor:
    """Read a layer: (codes - zeros) × scales in groups, zeros no whole numbers.

    Raises:
        ValueError: It has another number of bits than is read.
    """
    import torch

    bits, packed = int(tensors["nbits"]), tensors["W_q"]
    if bits not in BITS:
        raise ValueError(f"nbits is {bits}; {', '.join(map(str, BITS))} are read")
    if packed.is_floating_point():  # so that libraries that shard floats shard it, too
        packed = packed.contiguous().view(torch.int32 if bits == 3 else torch.uint8)
    # Rows that lie above each other share a number, the first of them in its highest bits.
    shared = 10 if bits == 3 else 8 // bits
    shifts = range((shared - 1) * bits, -1, -bits)
    codes = torch.cat([packed >> shift & (1 << bits) - 1 for shift in shifts])
    size, group = tuple(tensors["shape"].tolist()), int(tensors["group_size"])
    rows = group if int(tensors["axis"]) == 0 else prod(size) // group
    scales, zeros = tensors["scale"].float(), tensors["zero"].float()
    return ((codes[:rows] - zeros) * scales).reshape(size)


def _settings(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Settings of all layers, or of each kind of layer by its name."""
    said = config.get("quant_config") or {}
    return [said, *(one for one in said.values() if isinstance(one, dict))]


def _weights(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What the settings say of weights."""
    return [own for one in _settings(config) if (own := one.get("weight_quant_params"))]


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
