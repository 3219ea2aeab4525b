"""Which number types llama.cpp's quantizer gives the tensors of a model, by recipe.

The rules are those of ``llama_tensor_get_type`` in its ``llama-quant.cpp``, for the architectures
that are served here. They serve to estimate sizes; the quantizer itself decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from serving.runtimes.llamacpp.number_types import bytes_of
from serving.seams import WeightShape


@dataclass(frozen=True, slots=True)
class LayerPlace:
    """Which of a model's layers a matrix is in.

    Attributes:
        layer: From 0.
        num_layers: Of the model.
        shared: How many heads share a key and a value.
    """

    layer: int
    num_layers: int
    shared: int


Choose = Callable[[LayerPlace], str]


def _in_half(finer: str, base: str) -> Choose:
    """A finer type in the layers that get more bits."""
    return lambda place: finer if _has_more_bits(place) else base


@dataclass(frozen=True, slots=True)
class Mixture:
    """What a recipe makes of matrices; vectors stay float32.

    Attributes:
        number: llama.cpp's ``llama_ftype``.
        base: ggml type of most matrices.
        output: That of the output layer, or of the table if that is the output layer, too.
        values: That of a layer's values; None is ``base``.
        attended: Likewise of what follows attention.
        down: Likewise of the last matrix of its MLP.
    """

    number: int
    base: str
    output: str
    values: Choose | None = None
    attended: Choose | None = None
    down: Choose | None = None


MIXTURES = {
    "f16": Mixture(1, "F16", "F16"),
    "q8_0": Mixture(7, "Q8_0", "Q8_0"),
    "q6_k": Mixture(18, "Q6_K", "Q6_K"),
    "q5_k_m": Mixture(
        17, "Q5_K", "Q6_K", values=_in_half("Q6_K", "Q5_K"), down=_in_half("Q6_K", "Q5_K")
    ),
    "q4_k_m": Mixture(
        15, "Q4_K", "Q6_K", values=_in_half("Q6_K", "Q4_K"), down=_in_half("Q6_K", "Q4_K")
    ),
    "q4_0": Mixture(2, "Q4_0", "Q6_K"),
    "q3_k_m": Mixture(
        12,
        "Q3_K",
        "Q6_K",
        values=lambda place: "Q5_K" if place.layer < 2 else "Q4_K",
        attended=lambda place: "Q4_K",
        down=lambda place: "Q5_K" if place.layer < place.num_layers // 16 else "Q4_K",
    ),
    "q2_k": Mixture(
        10,
        "Q2_K",
        "Q6_K",
        values=lambda place: "Q4_K" if place.shared >= 4 else "Q3_K",
        attended=lambda place: "Q3_K",
        down=lambda place: "Q3_K",
    ),
}
"""By recipe."""

_SMALLER_BLOCKS = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""Types for rows that are no multiple of 256; theirs must be of 32."""

_BLOCKS = {**dict.fromkeys(_SMALLER_BLOCKS, 256), "F16": 1}
"""Numbers of a block; 32 for others."""

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_VALUES = re.compile(r"\.(v_proj|qkv_proj)\.weight$")
_ATTENDED = re.compile(r"\.(o_proj|self_attn\.dense)\.weight$")
_DOWN = re.compile(r"\.(down_proj|fc2)\.weight$")
_QUERIES = re.compile(r"\.q_proj\.weight$")
_OUTPUT = re.compile(r"(^|\.)lm_head\.weight$")


def mixed_bytes(recipe: str, shapes: Sequence[WeightShape]) -> int:
    """Bytes of a safetensors checkpoint's tensors in a recipe."""
    mixture = MIXTURES[recipe]
    layers = [int(found[1]) for shape in shapes if (found := _LAYER.search(shape.name))]
    num_layers = max(layers, default=-1) + 1
    shared = _heads_of_a_key(shapes)
    is_tied = not any(_OUTPUT.search(shape.name) for shape in shapes)

    def kind_of(shape: WeightShape) -> str:
        layer = _LAYER.search(shape.name)
        place = LayerPlace(int(layer[1]), num_layers, shared) if layer else None
        return _type_of(shape, mixture, place, is_tied)

    return sum(bytes_of(prod(shape.shape), kind_of(shape)) for shape in shapes)


def _type_of(shape: WeightShape, mixture: Mixture, place: LayerPlace | None, is_tied: bool) -> str:
    if len(shape.shape) != 2:
        return "F32"
    width, kind = shape.shape[1], mixture.base
    if _OUTPUT.search(shape.name) or (is_tied and shape.is_embedding):
        kind = mixture.output if width % _BLOCKS.get(mixture.base, 32) == 0 else "Q8_0"
    elif place is not None and (choose := _chooser(shape.name, mixture)):
        kind = choose(place)
    if width % _BLOCKS.get(kind, 32):
        kind = _SMALLER_BLOCKS.get(kind, "F16")
    return kind if width % _BLOCKS.get(kind, 32) == 0 else "F16"


def _chooser(name: str, mixture: Mixture) -> Choose | None:
    by_name = ((_VALUES, mixture.values), (_ATTENDED, mixture.attended), (_DOWN, mixture.down))
    return next((choose for pattern, choose in by_name if pattern.search(name)), None)


def _heads_of_a_key(shapes: Sequence[WeightShape]) -> int:
    """How many heads share a key: rows of queries for each row of values, of the first layer."""
    matrices = [shape for shape in shapes if len(shape.shape) == 2]
    values = next((shape for shape in matrices if _VALUES.search(shape.name)), None)
    if values is None:
        return 1
    rows, hidden = values.shape
    queries = next((shape.shape[0] for shape in matrices if _QUERIES.search(shape.name)), None)
    if queries is None:  # one matrix has queries, as many as the model is wide, keys and values
        return max(1, hidden // max(1, (rows - hidden) // 2))
    return max(1, queries // rows)


def _has_more_bits(place: LayerPlace) -> bool:
    eighth = place.num_layers // 8
    return (
        place.layer < eighth
        or place.layer >= 7 * place.num_layers // 8
        or (place.layer - eighth) % 3 == 2
    )
