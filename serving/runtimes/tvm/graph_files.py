"""Names that preparing and opening agree upon."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

LIBRARY = "model.so"
"""The compiled graph: machine code, which takes its numbers with each call."""

WEIGHTS = "model.safetensors"
"""The graph's numbers, in the order in which it takes them."""

FACTS = "facts.json"
"""``LibraryFacts``."""

FUNCTION = "main"
"""Of the library: takes the inputs, then the numbers, and gives hidden states or logits."""

IDS = "ids"
POSITIONS = "positions"
TYPES = "types"
"""Inputs, int32 (rows, eights, 8)."""

MASK = "mask"
"""The last input, float32 (rows, eights, 8): what is added to the products with each key."""

EIGHT = 8
"""Tokens of a row come by so many; what is missing is padding."""


class LibraryFacts(BaseModel):
    """What an engine has to know of a graph.

    Attributes:
        library_bytes: Size of the library; of one that was cut short, code would be missing.
        weights_bytes: Size of its numbers.
        flags: The CPU's instructions that it was compiled for, as the kernel names them.
        entries: By the name of each input but the mask, the number of entries of its table.
        padding_id: Where positions count from this token's id on, and leave it out; None where
            they count from 0.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    library_bytes: int
    weights_bytes: int
    flags: tuple[str, ...]
    entries: dict[str, int]
    padding_id: int | None
