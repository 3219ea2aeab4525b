"""What a form of quantized checkpoints is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from serving.quantized_checkpoints.integer_weight import IntegerWeight

Shapes = Mapping[str, tuple[int, ...]]
"""Of a layer's parts, by their names in it."""


@dataclass(frozen=True, slots=True)
class Integers:
    """What a ``quantization_config`` says of the integers that all its layers are made of.

    Attributes:
        bits: Their widths.
        is_symmetric: Whether the middle of them means 0 in every group.
        group_size: Inputs that share a scale; None where all of an output do, and 0 where layers
            differ.
        is_by_activation: Whether groups are of any inputs, and not of neighbours.
        has_short_scales: Whether scales are numbers of 16 bits, as far as the form says.

    Raises:
        ValueError: A width or the size of a group is no whole number.
    """

    bits: frozenset[int]
    is_symmetric: bool
    group_size: int | None
    is_by_activation: bool = False
    has_short_scales: bool = True

    def __post_init__(self) -> None:
        if others := [bits for bits in self.bits if not isinstance(bits, int)]:
            raise ValueError(f"bits are {others[0]!r}; a whole number is read")
        if not isinstance(self.group_size, int | None):
            raise ValueError(f"group_size is {self.group_size!r}; a whole number is read")


@dataclass(frozen=True, slots=True)
class QuantizedForm:
    """How one library writes the linear layers that it quantized: an entry of ``FORMS``.

    An entry's module imports no torch; its functions do when they are called.

    Attributes:
        marks: Names inside a layer of tensors, one of which every quantized layer has.
        parts: Names inside a layer of all tensors that stand for its weight.
        why_not: Of a checkpoint's ``quantization_config``, what of it is not read; None if all is.
        integers: What ``quantization_config`` says of its integers; None where a layer is made of
            something else.
        shape: Of a layer's weight, from its parts' and ``quantization_config``; for estimates. One
            row where they tell only how many numbers there are.
        read: The weight of one layer, from its parts by their names and ``quantization_config``;
            float32 (outputs, inputs) where it is not made of integers.
        tells_shapes: Whether every layer's parts tell its outputs and inputs. Where not, the
            numbers that ``read`` returns are in their order, and the model's own shape is theirs.
        unused_bytes: How many bytes of a layer's parts its numbers do not need; for estimates.
        layers_in: Of a stored layer (its name, its parts' shapes and its own), the model's layers
            that lie in it one below the other, by their names, and their outputs; raises
            ``KeyError`` or ``ValueError`` where they do not go together. None where each is one,
            as it has to be where layers are made of integers.
    """

    marks: tuple[str, ...]
    parts: tuple[str, ...]
    why_not: Callable[[Mapping[str, Any]], str | None]
    integers: Callable[[Mapping[str, Any]], Integers | None]
    shape: Callable[[Shapes, Mapping[str, Any]], tuple[int, ...]]
    read: Callable[[Mapping[str, Tensor], Mapping[str, Any]], IntegerWeight | Tensor]
    tells_shapes: bool = True
    unused_bytes: Callable[[Shapes, Mapping[str, Any]], int] = lambda parts, config: 0
    layers_in: Callable[[str, Shapes, tuple[int, ...]], Mapping[str, int]] | None = None


TABLES = ("wte", "wpe", "shared")
"""Tables of embeddings whose names do not say so: GPT-2's, and one that T5's halves share."""

NO_TABLES = ("embed_out", "proj", "mapping", "transform", "dense")
"""Parts of names of linear layers that are called after embeddings: of outputs, or by tables."""


def is_table(layer: str) -> bool:
    """Whether a layer of this name is a table of embeddings, which nothing keeps as integers."""
    own = layer.rpartition(".")[2].lower()
    if own in TABLES:
        return True
    # GGUF's names have no vowel there.
    return ("embed" in own or "embd" in own) and not any(part in own for part in NO_TABLES)
