"""Checkpoints of compressed-tensors, as llm-compressor writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from serving.quantized_checkpoints.form import Integers, QuantizedForm, Shapes

if TYPE_CHECKING:
    from torch import Tensor

    from serving.quantized_checkpoints.integer_weight import IntegerWeight

FORMATS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized")

BITS = range(1, 9)

BY_ACTIVATION = ("group", "dynamic", True)
"""Values of ``actorder`` with which groups are of any inputs; with others they are neighbours."""


class Packing(NamedTuple):
    """How integers lie in 32-bit words, lowest bits first.

    Attributes:
        bits: Of an integer.
        has_gaps: Whether none reaches into the next word, as older versions of the library packed:
            of 3, 5, 6 and 7 bits the end of each word is then unused.
    """

    bits: int
    has_gaps: bool

    def words(self, count: int) -> int:
        """How many words hold so many integers."""
        return -(-count // (32 // self.bits)) if self.has_gaps else -(-count * self.bits // 32)

    def room(self, words: int) -> int:
        """How many integers so many words hold."""
        return words * (32 // self.bits) if self.has_gaps else words * 32 // self.bits

    def unpack(self, words: Tensor, count: int) -> Tensor:
        """Take rows apart: from int32 (rows, words) to int16 (rows, count), from 0."""
        from serving.quantized_checkpoints.integer_weight import unpack_words

        if not self.has_gaps:
            return unpack_words(words, self.bits, count)
        single = unpack_words(words.reshape(-1, 1), self.bits, 32 // self.bits)
        return single.reshape(len(words), -1)[:, :count]


def why_not(config: Mapping[str, Any]) -> str | None:
    """Say that sparse and rotated weights, and 4-bit floats, are not read."""
    sparsity = config.get("sparsity_config") or {}
    if sparsity and sparsity.get("format") != "dense":
        return f"the format of its sparsity_config is {sparsity.get('format')}; dense is read"
    if (config.get("transform_config") or {}).get("config_groups"):
        return "it has a transform_config: its weights are rotated, which is not undone"
    groups = list((config.get("config_groups") or {}).values())
    formats = {group.get("format") or config.get("format") for group in groups}
    if others := sorted(str(one) for one in formats - {*FORMATS}):
        return f"format is {', '.join(others)}; {', '.join(FORMATS)} are read"
    for weights in _weights(config):
        if (bits := weights.get("num_bits", 8)) not in BITS:
            return f"num_bits is {bits!r}; {BITS.start} to {BITS.stop - 1} are read"
    return None


def integers(config: Mapping[str, Any]) -> Integers | None:
    """Of every group of layers, unless one of them is made of floats."""
    groups = _weights(config)
    if not groups or any(group.get("type", "int") != "int" for group in groups):
        return None
    sizes = {_group_size(group) for group in groups}
    return Integers(
        bits=frozenset(group.get("num_bits", 8) for group in groups),
        is_symmetric=all(group.get("symmetric", True) for group in groups),
        group_size=sizes.pop() if len(sizes) == 1 else 0,
        is_by_activation=any(group.get("actorder") in BY_ACTIVATION for group in groups),
    )


def shape(parts: Shapes, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Outputs and inputs of a layer; of packed ones without groups some more than it has.

    Those are all that its words have room for.
    """
    if "weight_packed" not in parts:
        return parts["weight"]
    outputs, words = parts["weight_packed"]
    groups = parts.get("weight_scale", (1,))[-1]
    for weights in _weights(config):
        inputs = groups * (_group_size(weights) or 0)
        if any(packing.words(inputs) == words for packing in _packings([weights])):
            return outputs, inputs
    fewest = min(weights.get("num_bits", 8) for weights in _weights(config))
    # Inputs are multiples of 32 as a rule, whose words without gaps are multiples of their bits.
    return outputs, Packing(fewest, has_gaps=words % fewest != 0).room(words)


def read(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> IntegerWeight | Tensor:
    """Read a layer: packed or whole integers, or 8-bit floats.

    Packed integers are moved up to begin at 0; so are packed zeros. Each lies along the inputs, but
    zeros along the outputs. Older files have a byte for each zero, which is not moved up.

    Raises:
        ValueError: Its words or its zeros are of no layout that is read.
    """
    import torch

    from serving.quantized_checkpoints.integer_weight import IntegerWeight, even_groups
    from serving.quantized_checkpoints.scale_blocks import spread

    scales = tensors["weight_scale"].float()
    if "weight_packed" in tensors:
        return _read_packed(tensors, scales, config)
    weight = tensors["weight"]
    if weight.dtype.itemsize != 1:
        raise ValueError(f"weight is {weight.dtype}; int8 and 8-bit floats are read")
    if weight.dtype != torch.int8:
        blocks = (one.get("block_structure") for one in _weights(config))
        return weight.float() * spread(scales, weight.shape, next(filter(None, blocks), None))
    scales = scales.reshape(-1, 1) if scales.numel() in (1, len(weight)) else scales
    zeros = tensors.get("weight_zero_point")
    return IntegerWeight(
        codes=weight.to(torch.int16),
        scales=scales.expand(len(weight), -1),
        zeros=(torch.zeros_like(scales) if zeros is None else zeros.float().view_as(scales)).expand(
            len(weight), -1
        ),
        group_of=even_groups(weight.shape[1], scales.shape[1]),
        bits=8,
    )


def _read_packed(
    tensors: Mapping[str, Tensor], scales: Tensor, config: Mapping[str, Any]
) -> IntegerWeight:
    from serving.quantized_checkpoints.integer_weight import IntegerWeight, even_groups

    outputs, inputs = (int(size) for size in tensors["weight_shape"])
    words = tensors["weight_packed"]
    packing = _packing_of(words.shape[1], inputs, config)
    scales = scales.reshape(1, 1).expand(outputs, 1) if scales.numel() == 1 else scales
    groups = tensors.get("weight_g_idx")
    if groups is not None and (groups < 0).any():  # the library's sign that there is none
        groups = None
    return IntegerWeight(
        codes=packing.unpack(words, inputs),
        scales=scales,
        zeros=_zeros(tensors.get("weight_zero_point"), packing, scales),
        group_of=even_groups(inputs, scales.shape[1]) if groups is None else groups.long(),
        bits=packing.bits,
    )


def _packing_of(words: int, inputs: int, config: Mapping[str, Any]) -> Packing:
    """How rows of so many words hold so many integers."""
    fitting = [one for one in _packings(_weights(config)) if one.words(inputs) == words]
    if len({one.bits for one in fitting}) == 1 and inputs <= 32 // fitting[0].bits:
        return fitting[0]  # all in one word, where there are no gaps yet
    if len(fitting) != 1:
        widths = ", ".join(str(bits) for bits in sorted({one.bits for one in fitting}))
        of_which = f"{len(fitting)} layouts, of {widths} bits" if fitting else "no known layout"
        raise ValueError(f"{words} words that hold {inputs} inputs are of {of_which}")
    return fitting[0]


def _packings(groups: list[Mapping[str, Any]]) -> list[Packing]:
    """In what ways layers of these groups may be packed."""
    return [
        Packing(bits, has_gaps)
        for bits in sorted({group.get("num_bits", 8) for group in groups})
        for has_gaps in ((False, True) if 32 % bits else (False,))
    ]


def _zeros(zeros: Tensor | None, packing: Packing, scales: Tensor) -> Tensor:
    """Zeros (outputs, groups) of codes from 0."""
    import torch

    half = 1 << (packing.bits - 1)
    if zeros is None:
        return torch.full_like(scales, half)
    outputs, groups = scales.shape
    if zeros.dtype == torch.int8:
        single = zeros.reshape(1, 1) if zeros.numel() == 1 else zeros
        return (single.float() + half).expand(outputs, groups)
    if zeros.dtype != torch.int32 or zeros.shape != (packing.words(outputs), groups):
        raise ValueError(
            f"weight_zero_point is {zeros.dtype} {tuple(zeros.shape)}; expected int8 "
            f"{(outputs, groups)}, or int32 {(packing.words(outputs), groups)}"
        )
    return packing.unpack(zeros.T, outputs).T.float()


def _weights(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What the groups of layers say of their weights, where they quantize any."""
    groups = (config.get("config_groups") or {}).values()
    return [group["weights"] for group in groups if group.get("weights")]


def _group_size(weights: Mapping[str, Any]) -> int | None:
    size: int | None = weights.get("group_size")
    return None if size == -1 else size


FORM = QuantizedForm(
    marks=("weight_packed", "weight_scale"),
    parts=(
        *("weight", "weight_packed", "weight_scale", "weight_zero_point", "weight_shape"),
        *("weight_g_idx", "input_scale", "input_zero_point", "output_scale", "output_zero_point"),
    ),
    why_not=why_not,
    integers=integers,
    shape=shape,
    read=read,
)
