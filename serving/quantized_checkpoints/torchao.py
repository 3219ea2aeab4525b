"""torchao's checkpoints, as transformers writes its tensors: each flattened into plain ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from serving.quantized_checkpoints.form import Integers, QuantizedForm, Shapes, is_table

if TYPE_CHECKING:
    from torch import Tensor

    from serving.quantized_checkpoints.integer_weight import IntegerWeight

INT8 = (
    "Int8WeightOnlyConfig",
    "Int8DynamicActivationInt8WeightConfig",
    "Int8StaticActivationInt8WeightConfig",
)
INTX = ("IntxWeightOnlyConfig", "Int8DynamicActivationIntxWeightConfig")
PACKED = ("Int4WeightOnlyConfig", "Float8DynamicActivationInt4WeightConfig")
"""Two numbers of 4 bits in a byte."""
FLOATS = ("Float8WeightOnlyConfig", "Float8DynamicActivationFloat8WeightConfig")

READ = (*INT8, *INTX, *PACKED, *FLOATS)
"""Configurations whose tensors are read; training with fake quantization ends in these, too."""

BY_NAME = ("FqnToConfig", "ModuleFqnToConfig")
"""Configurations that have others for the layers of some names."""

LAYOUTS = {
    "intx_packing_format": "UNPACKED_TO_INT8",
    "int4_packing_format": "PLAIN",
    "packing_format": "PLAIN",
}
"""Of each configuration that has a choice, the layout that is read."""

WHOLE_ROWS = ("PerRow", "PerAxis", "PerTensor")


def why_not(config: Mapping[str, Any]) -> str | None:
    """Say that other numbers, and layouts of one kind of GPU, are not read."""
    for one in _configs(config):
        if (name := one.get("_type")) not in READ:
            return f"quant_type is {name}; {', '.join(READ)} are read"
        for key, layout in LAYOUTS.items():
            found = _plain((one.get("_data") or {}).get(key, layout))
            if str(found).upper() != layout:
                return f"{key} of {name} is {found}; {layout} is read"
    return None


def integers(config: Mapping[str, Any]) -> Integers | None:
    """Of all layers but tables, unless some are floats or have offsets that are no whole codes."""
    of_layers = _configs(config, with_tables=False)
    found = [_integers(one["_type"], one.get("_data") or {}) for one in of_layers]
    kept = [one for one in found if one is not None]
    if not found or len(kept) < len(found):
        return None
    sizes = {one.group_size for one in kept}
    return Integers(
        bits=frozenset().union(*(one.bits for one in kept)),
        is_symmetric=all(one.is_symmetric for one in kept),
        group_size=sizes.pop() if len(sizes) == 1 else 0,
        has_short_scales=all(one.has_short_scales for one in kept),
    )


def _integers(name: str, said: Mapping[str, Any]) -> Integers | None:
    if name in (*FLOATS, *PACKED):
        return None
    if name in INT8:
        return Integers(frozenset({8}), True, _group_size(said), has_short_scales=False)
    mapping = said.get("mapping_type", said.get("weight_mapping_type"))
    return Integers(
        bits=frozenset({int(str(_plain(said.get("weight_dtype", "int8"))).removeprefix("int"))}),
        is_symmetric=str(_plain(mapping)) != "ASYMMETRIC",
        group_size=_group_size(said),
    )


def _group_size(said: Mapping[str, Any]) -> int | None:
    granularity = said.get("granularity", said.get("weight_granularity"))
    # Of activations and weights, in that order, where there are two.
    first = granularity[-1] if isinstance(granularity, list) else granularity
    if first is None or first["_type"] in WHOLE_ROWS:
        return None
    return int((first.get("_data") or {}).get("group_size", 0))


def shape(parts: Shapes, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Outputs and inputs of a layer."""
    outputs, inputs = parts["_weight_qdata"]
    is_packed = _is_packed(parts["_weight_qdata"], parts["_weight_scale"], config)
    return outputs, 2 * inputs if is_packed else inputs


def unused_bytes(parts: Shapes, config: Mapping[str, Any]) -> int:
    """Codes of fewer bits have a byte each; zeros have one where all of them are in the middle."""
    found = integers(config)
    if found is None:
        return 0
    outputs, inputs = parts["_weight_qdata"]
    in_the_middle = prod(parts.get("_weight_zero_point", (0,))) if found.is_symmetric else 0
    return outputs * inputs * (8 - max(found.bits)) // 8 + in_the_middle


def read(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> IntegerWeight | Tensor:
    """Read a layer: 8-bit floats, integers of any width in a byte each, or of 4 bits in half a one.

    Raises:
        ValueError: Its inputs are to be scaled first, or its tensors are of no kind that is read.
    """
    import torch

    from serving.quantized_checkpoints.integer_weight import IntegerWeight, even_groups
    from serving.quantized_checkpoints.scale_blocks import spread

    if "_weight_act_pre_scale" in tensors:
        raise ValueError("its inputs are multiplied by _weight_act_pre_scale, which is not read")
    codes, scales = tensors["_weight_qdata"], tensors["_weight_scale"].float()
    if codes.is_floating_point():
        return codes.float() * spread(scales, codes.shape)
    if codes.dtype not in (torch.int8, torch.uint8):
        raise ValueError(f"_weight_qdata is of {codes.dtype}; bytes are read")
    zeros = tensors.get("_weight_zero_point")
    if _is_packed(codes.shape, scales.shape, config):
        return _read_packed(codes, scales, tensors["_weight_zero_point"])
    scales = scales.expand(len(codes), -1)
    codes = codes.to(torch.int16)
    return IntegerWeight(
        codes=codes,
        scales=scales,
        zeros=torch.zeros_like(scales) if zeros is None else zeros.float().expand(len(codes), -1),
        group_of=even_groups(codes.shape[1], scales.shape[1]),
        bits=_width(codes, config),
    )


def _read_packed(packed: Tensor, scales: Tensor, offsets: Tensor) -> Tensor:
    """codes × scale + offset, codes from -8; the first of two in a byte's lowest bits.

    Args:
        packed: (outputs, half of the inputs).
        scales: (groups, outputs).
        offsets: Likewise.
    """
    import torch

    halves = torch.stack((packed & 15, packed >> 4 & 15), dim=-1).flatten(1).to(torch.int16)
    codes = torch.where(halves > 7, halves - 16, halves)
    size = codes.shape[1] // len(scales)
    by_input = [part.T.float().repeat_interleave(size, 1) for part in (scales, offsets)]
    return codes * by_input[0] + by_input[1]


def _is_packed(codes: Sequence[int], scales: Sequence[int], config: Mapping[str, Any]) -> bool:
    """Whether two codes share a byte: then scales are (groups, outputs), elsewhere the other way.

    Raises:
        ValueError: Layers of both kinds are in the checkpoint, and this one may be of either.
    """
    names = {one["_type"] for one in _configs(config)}
    if not names & {*PACKED} or names <= {*PACKED}:
        return bool(names & {*PACKED})
    if scales[0] == scales[-1] == codes[0]:
        raise ValueError("as many groups as outputs, in a checkpoint of several configurations")
    return scales[0] != codes[0]


def _width(codes: Tensor, config: Mapping[str, Any]) -> int:
    """The least of the checkpoint's widths that holds a layer's codes, which is so kept exactly."""
    found = integers(config)
    widths = sorted(found.bits) if found else [8]
    low, high = int(codes.min()), int(codes.max())
    return next((b for b in widths if -(1 << b - 1) <= low and high < 1 << b - 1), 8)


def _configs(config: Mapping[str, Any], with_tables: bool = True) -> Iterator[Mapping[str, Any]]:
    """Every configuration that some layers have; None stands for layers that stay as they are.

    Args:
        config: A ``quantization_config``.
        with_tables: Whether those of tables of embeddings count.
    """
    pending = list((config.get("quant_type") or {}).values())
    while pending:
        one = pending.pop()
        if one is None:
            continue
        if one.get("_type") in BY_NAME:
            data = one.get("_data") or {}
            pending += [
                inner
                for key in ("fqn_to_config", "module_fqn_to_config")
                for name, inner in (data.get(key) or {}).items()
                if with_tables or not is_table(name)
            ]
        else:
            yield one


def _plain(value: Any) -> Any:
    """What an enumeration or a type is called, as torchao writes it."""
    return value["_data"] if isinstance(value, dict) else value


FORM = QuantizedForm(
    marks=("_weight_qdata",),
    parts=(
        *("_weight_qdata", "_weight_scale", "_weight_zero_point", "_weight_scale_and_zero"),
        *("_weight_act_quant_scale", "_weight_act_quant_zero_point", "_weight_act_pre_scale"),
    ),
    why_not=why_not,
    integers=integers,
    shape=shape,
    read=read,
    unused_bytes=unused_bytes,
)
