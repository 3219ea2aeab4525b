"""Which number types llama.cpp's quantizer gives the tensors of a model, by recipe.

The rules are those of ``llama_tensor_get_type`` in its ``llama-quant.cpp``, for the architectures
that are served here. They serve to estimate sizes; the quantizer itself decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from serving.runtimes.llamacpp.number_types import bytes_of
from serving.seams import WeightShape


@dataclass(frozen=True, slots=True)
class Mixture:
    """What a recipe makes of matrices; vectors stay float32.

    Attributes:
        number: llama.cpp's ``llama_ftype``.
        base: ggml type of most matrices.
        output: That of the output layer, or of the table if that is the output layer, too.
        finer: That of values and of the last matrix of MLPs in half of the layers.
    """

    number: int
    base: str
    output: str
    finer: str


MIXTURES = {
    "f16": Mixture(1, "F16", "F16", "F16"),
    "q8_0": Mixture(7, "Q8_0", "Q8_0", "Q8_0"),
    "q6_k": Mixture(18, "Q6_K", "Q6_K", "Q6_K"),
    "q5_k_m": Mixture(17, "Q5_K", "Q6_K", "Q6_K"),
    "q4_k_m": Mixture(15, "Q4_K", "Q6_K", "Q6_K"),
    "q4_0": Mixture(2, "Q4_0", "Q6_K", "Q4_0"),
}
"""By recipe."""

_SMALLER_BLOCKS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""Types for rows that are no multiple of 256; theirs must be of 32."""

_BLOCKS = {"Q4_K": 256, "Q5_K": 256, "Q6_K": 256, "F16": 1}
"""Numbers of a block; 32 for others."""

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_FINER = re.compile(r"\.(v_proj|qkv_proj|down_proj|fc2)\.weight$")
_OUTPUT = re.compile(r"(^|\.)lm_head\.weight$")


def mixed_bytes(recipe: str, shapes: Sequence[WeightShape]) -> int:
    """Bytes of a safetensors checkpoint's tensors in a recipe."""
    mixture = MIXTURES[recipe]
    layers = [int(found[1]) for shape in shapes if (found := _LAYER.search(shape.name))]
    num_layers = max(layers, default=-1) + 1
    is_tied = not any(_OUTPUT.search(shape.name) for shape in shapes)
    return sum(
        bytes_of(prod(shape.shape), _type_of(shape, mixture, num_layers, is_tied))
        for shape in shapes
    )


def _type_of(shape: WeightShape, mixture: Mixture, num_layers: int, is_tied: bool) -> str:
    if len(shape.shape) != 2:
        return "F32"
    width, kind = shape.shape[1], mixture.base
    if _OUTPUT.search(shape.name) or (is_tied and shape.is_embedding):
        kind = mixture.output if width % _BLOCKS.get(mixture.base, 32) == 0 else "Q8_0"
    elif _FINER.search(shape.name) and (layer := _LAYER.search(shape.name)):
        kind = mixture.finer if _has_more_bits(int(layer[1]), num_layers) else kind
    if width % _BLOCKS.get(kind, 32):
        kind = _SMALLER_BLOCKS.get(kind, "F16")
    return kind if width % _BLOCKS.get(kind, 32) == 0 else "F16"


def _has_more_bits(layer: int, num_layers: int) -> bool:
    eighth = num_layers // 8
    return layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2
