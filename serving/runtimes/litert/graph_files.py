"""Names that preparing and opening agree upon."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

GRAPH = "model.tflite"
"""The graph and its constants."""

FACTS = "facts.json"
"""``GraphFacts``."""

IDS = "ids"
POSITIONS = "positions"
TYPES = "types"
"""Inputs, int32 (tokens,). A graph without a table of types has no ``types``."""

OUTPUT = "output"
"""The graph's only output: last hidden states (tokens, width), or logits (1, labels)."""


class GraphFacts(BaseModel):
    """What an engine has to know of a graph.

    Attributes:
        file_bytes: Size of its file; of one that was cut short, kernels would read past the end.
        weights_bytes: Size of its constants, with the scales of 8-bit ones.
        padding_id: Where positions count from this token's id on, and leave it out; None where
            they count from 0.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file_bytes: int
    weights_bytes: int
    padding_id: int | None
