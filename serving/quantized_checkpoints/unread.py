"""Tensors of quantized layers that no form reads: as they are, they would be wrong numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from serving.quantized_checkpoints.forms import FORMS, form_of
from serving.quantized_checkpoints.layers import parts_of_layers
from serving.seams import WeightShape

_IN_FLOAT_MODELS_TOO = ("W_q", "codebooks")

_ENDINGS = (
    *(m for form in FORMS.values() for m in form.marks if m not in _IN_FLOAT_MODELS_TOO),
    *("weight_scale_2", "weight_scales", "weight_global_scale", "scale_weight", "_scale_inv"),
    *("qzeros", "weight_zero_point", ".absmax", ".view_as_float"),
    *(".act.scales", ".gelu_impl.scales"),  # AWQ's activations divide by them
)
"""Of names that no layer of float weights has."""

_FLOAT8 = re.compile("F8_.+")
_WHOLE = re.compile(r"[IU]\d+")


def unread_part(shapes: Sequence[WeightShape], config: Mapping[str, Any]) -> WeightShape | None:
    """A tensor that would be left as it is though it belongs to a quantized layer; None if none is.

    A mask of whole numbers is none, nor is a table that is stored in float32.

    Args:
        shapes: As the headers of a checkpoint's files tell them.
        config: Its ``config.json``, of a form that is read, or of a checkpoint that says nothing of
            being quantized.
    """
    found = form_of(config)
    by_name = {shape.name: shape for shape in shapes}
    layers = {} if found is None else parts_of_layers(by_name, found[0])
    parts = {name for of_layer in layers.values() for name in of_layer.values()}
    return next((one for one in shapes if one.name not in parts and _is_quantized(one)), None)


def _is_quantized(shape: WeightShape) -> bool:
    is_weight = shape.name == "weight" or shape.name.endswith(".weight")
    return (
        _FLOAT8.fullmatch(shape.dtype) is not None
        or (is_weight and _WHOLE.fullmatch(shape.dtype) is not None)
        or shape.name.endswith(_ENDINGS)
    )
