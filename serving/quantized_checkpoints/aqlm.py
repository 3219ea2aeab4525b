"""AQLM's checkpoints: each group of weights is a sum of rows of codebooks (arXiv:2401.06118)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from serving.quantized_checkpoints.form import Integers, QuantizedForm, Shapes

if TYPE_CHECKING:
    from torch import Tensor

_SIZES = {
    "in_group_size": range(1, 1_025),
    "out_group_size": range(1, 1_025),
    "num_codebooks": range(1, 65),
    "nbits_per_codebook": range(1, 17),
}
"""What ``quantization_config`` has to say, and within what."""


def why_not(config: Mapping[str, Any]) -> str | None:
    """Say that sizes are missing, or beyond what the format has."""
    for name, sizes in _SIZES.items():
        value = config.get(name)
        if not isinstance(value, int) or value not in sizes:
            return f"{name} is {value!r}; {sizes.start} to {sizes.stop - 1} are read"
    return None


def integers(config: Mapping[str, Any]) -> Integers | None:
    """There are none: its codes number rows of codebooks."""
    return None


def shape(parts: Shapes, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Outputs and inputs of a layer."""
    out_groups, in_groups, _ = parts["codes"]
    return out_groups * config["out_group_size"], in_groups * config["in_group_size"]


def read(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Tensor:
    """Read a layer: of each group the sum of one row of every codebook, times its scale.

    Codes are int8, int16 or larger (output groups, input groups, codebooks), of which the lowest
    bits count; codebooks (codebooks, rows, outputs, inputs of a group); scales (output groups, 1 or
    input groups, 1, 1).

    Raises:
        ValueError: Codes or codebooks are not as the configuration says.
    """
    codebooks = tensors["codebooks"].float()
    rows = 1 << config["nbits_per_codebook"]
    group = config["out_group_size"], config["in_group_size"]
    expected = (config["num_codebooks"], rows, *group)
    if tuple(codebooks.shape) != expected:
        raise ValueError(f"codebooks are {tuple(codebooks.shape)}; expected {expected}")
    codes = tensors["codes"].long() & (rows - 1)
    if codes.ndim != 3 or codes.shape[2] != len(codebooks):
        raise ValueError(f"codes are {tuple(codes.shape)}; expected one for each codebook")
    groups = codebooks[0][codes[..., 0]]
    for number in range(1, len(codebooks)):
        groups += codebooks[number][codes[..., number]]
    groups *= tensors["scales"].float()
    return groups.transpose(1, 2).flatten(2).flatten(0, 1)


FORM = QuantizedForm(
    marks=("codebooks",),
    parts=("codes", "codebooks", "scales"),
    why_not=why_not,
    integers=integers,
    shape=shape,
    read=read,
)
