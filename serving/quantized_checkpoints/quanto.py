"""optimum-quanto's checkpoints, of which a map beside ``config.json`` tells what is quantized."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from serving.quantized_checkpoints.form import Integers, QuantizedForm, Shapes

if TYPE_CHECKING:
    from torch import Tensor

    from serving.quantized_checkpoints.integer_weight import IntegerWeight

NONE = "none"
"""What the map says of layers whose activations alone are quantized."""

EIGHT_BIT_FLOATS = ("float8", "qfloat8", "qfloat8_e4m3fn", "qfloat8_e5m2")
INT8 = ("int8", "qint8")
PACKED = ("int4", "qint4", "int2", "qint2")

PACKED_BITS = (2, 4)


def why_not(config: Mapping[str, Any]) -> str | None:
    """Say that other numbers are not read."""
    known = (NONE, *INT8, *PACKED, *EIGHT_BIT_FLOATS)
    others = sorted(str(kind) for kind in _kinds(config) if kind not in known)
    if others:
        return f"weights are {', '.join(others)}; {', '.join(known[1:])} are read"
    return None


def integers(config: Mapping[str, Any]) -> Integers | None:
    """Those of 8 bits; packed ones have offsets that are no whole numbers."""
    if {*_kinds(config)} - {NONE, *INT8}:
        return None
    return Integers(frozenset({8}), True, None)


def shape(parts: Shapes, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Outputs and inputs of a layer; of packed ones, whose header tells neither, all in one row."""
    if "weight._data" in parts:
        return parts["weight._data"]
    return 1, parts["weight._scale"][0] * parts["weight._data._data"][1]


def read(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> IntegerWeight | Tensor:
    """Read a layer: 8 bits with a scale for each output, or packed integers in groups.

    The activations' own scales, of which each layer has two, are left out.

    Raises:
        ValueError: The packed rows are of no width that is read.
    """
    import torch

    from serving.quantized_checkpoints.integer_weight import IntegerWeight

    scales = tensors["weight._scale"].float()
    if "weight._data" not in tensors:
        return _read_packed(tensors["weight._data._data"], scales, tensors["weight._shift"])
    weight = tensors["weight._data"]
    if weight.is_floating_point():
        return weight.float() * scales
    scales = scales.reshape(-1, 1).expand(len(weight), 1)
    groups = torch.zeros(weight.shape[1], dtype=torch.int64)
    return IntegerWeight(weight.to(torch.int16), scales, torch.zeros_like(scales), groups, bits=8)


def _read_packed(packed: Tensor, scales: Tensor, shifts: Tensor) -> Tensor:
    """codes × scale - shift, or (codes - shift) × scale where shifts are whole numbers.

    A row is a group, or an output where the layer has no groups. Rows that lie above each other
    share a byte, the first of them in its lowest bits.
    """
    import torch

    rows = len(scales)
    widths = [bits for bits in PACKED_BITS if -(-rows * bits // 8) == len(packed)]
    if len(widths) != 1:
        raise ValueError(f"{len(packed)} packed rows of {rows} have no width of {PACKED_BITS}")
    [bits] = widths
    codes = torch.cat([packed >> shift & (1 << bits) - 1 for shift in range(0, 8, bits)])[:rows]
    if shifts.is_floating_point():
        return codes * scales - shifts.float()
    return (codes.float() - shifts) * scales


def _kinds(config: Mapping[str, Any]) -> Iterable[Any]:
    """Numbers of the layers' weights: of each in the map, or of all in transformers' own words."""
    if "layers" in config:
        return [layer.get("weights") for layer in config["layers"].values()]
    return [config.get("weights")]


FORM = QuantizedForm(
    marks=("weight._scale",),
    parts=(
        *("weight._data", "weight._data._data", "weight._scale", "weight._shift"),
        *("input_scale", "output_scale"),
    ),
    why_not=why_not,
    integers=integers,
    shape=shape,
    read=read,
    tells_shapes=False,
)
