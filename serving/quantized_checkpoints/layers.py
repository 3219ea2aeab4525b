"""Which tensors of a quantized checkpoint are parts of which layer."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from math import prod
from typing import Any

from serving.quantized_checkpoints.form import QuantizedForm, is_table
from serving.quantized_checkpoints.forms import form_of
from serving.seams import WeightShape

_WIDTHS = ("hidden_size", "d_model", "n_embd", "dim")
"""Names in ``config.json`` of how many numbers a token has between layers; families differ."""

_BACK_TO_WIDTH = ("o_proj", "out_proj", "down_proj", "fc2", "w2", "dense_4h_to_h")
"""Layers, as families without biases call them, whose outputs are of that width; of most others
the inputs are."""

INPUTS_FIRST = {
    "gpt2": ("c_attn", "q_attn", "c_proj", "c_fc"),
    "openai-gpt": ("c_attn", "c_proj", "c_fc"),
}
"""By ``model_type``, the layers that are ``Conv1D`` in transformers."""


def has_inputs_first(layer: str, config: Mapping[str, Any]) -> bool:
    """Whether the model wants (inputs, outputs) of a layer, which libraries quantize as any other.

    Its shape cannot tell: it may be square.
    """
    return layer.rpartition(".")[2] in INPUTS_FIRST.get(str(config.get("model_type")), ())


def parts_of_layers(names: Collection[str], form: QuantizedForm) -> dict[str, dict[str, str]]:
    """The quantized layers: of each its parts' tensors, by their names in the layer."""
    layers = sorted(
        name.removesuffix(f".{mark}")
        for name in names
        for mark in form.marks
        if name.endswith(f".{mark}")
    )
    return {
        layer: {part: f"{layer}.{part}" for part in form.parts if f"{layer}.{part}" in names}
        for layer in dict.fromkeys(layers)
    }


def shapes_of_model(
    shapes: Sequence[WeightShape], config: Mapping[str, Any]
) -> Sequence[WeightShape]:
    """Tensors of the model that was quantized, from those that the checkpoint has.

    Args:
        shapes: As the headers of the checkpoint's files tell them.
        config: Its ``config.json``, of a form that is read, or of a checkpoint that is not
            quantized, whose tensors are its own.
    """
    found = form_of(config)
    if found is None:
        return shapes
    form, said = found
    by_name = {shape.name: shape for shape in shapes}
    layers = parts_of_layers(by_name, form)
    parts = {name for of_layer in layers.values() for name in of_layer.values()}
    kept = [shape for shape in shapes if shape.name not in parts]
    for layer, of_layer in layers.items():
        found_parts = {part: by_name[name] for part, name in of_layer.items()}
        part_shapes = {part: one.shape for part, one in found_parts.items()}
        shape = form.shape(part_shapes, said)
        stored = sum(_bytes(one) for part, one in found_parts.items() if "g_idx" not in part)
        stored -= form.unused_bytes(part_shapes, said)
        is_flat = len(shape) == 2 and shape[0] == 1
        if is_flat:
            bias = by_name.get(f"{layer}.bias")
            shape = _unfolded(layer, prod(shape), config, bias)
        of_layers = {layer: shape}
        if form.layers_in is not None:
            outputs = form.layers_in(layer, part_shapes, shape)
            of_layers = {name: (number, *shape[1:]) for name, number in outputs.items()}
        for name, its_shape in of_layers.items():
            kept.append(
                WeightShape(
                    f"{name}.weight",
                    its_shape[::-1] if has_inputs_first(name, config) else its_shape,
                    is_embedding=is_table(name),
                    stored_bytes=None if is_table(name) else stored // len(of_layers),
                    is_flat=is_flat,
                )
            )
    return kept


def _unfolded(
    layer: str, numbers: int, config: Mapping[str, Any], bias: WeightShape | None
) -> tuple[int, int]:
    """Outputs and inputs that a layer of so many numbers likely has; one row if nothing tells.

    Kernels pad every row, so that one row of all numbers would be taken for many times its size.
    """
    if bias is not None:
        outputs = prod(bias.shape)
        return (outputs, numbers // outputs) if outputs and numbers % outputs == 0 else (1, numbers)
    config = config.get("text_config") or config
    widths = (config.get(name) for name in _WIDTHS)
    width = next((value for value in widths if isinstance(value, int) and value >= 1), numbers)
    if numbers % width:
        return 1, numbers
    others = numbers // width
    return (width, others) if layer.endswith(_BACK_TO_WIDTH) else (others, width)


def _bytes(part: WeightShape) -> int:
    """In the file; names of types end in their bits, or go on with how a float is made of them."""
    bits = re.search(r"\d+", part.dtype)
    return prod(part.shape) * (int(bits[0]) if bits else 8) // 8
