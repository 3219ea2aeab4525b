"""Names and limits that preparing and opening agree upon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

ENGINE = "model.engine"
"""TensorRT's serialized engine: code for one GPU, and its numbers."""

FACTS = "facts.json"
"""``EngineFacts``."""

OUTPUT = "output"
"""The engine's only output: last hidden states, or logits."""

MOST_TOKENS = 16_384
"""Of all rows of a pass together: TensorRT plans its memory for them. What is more is parted."""

USUAL_TOKENS = 512
"""Of a row, where a configuration names no limit."""


class EngineFacts(BaseModel):
    """What an encoder has to know of an engine: sizes in bytes, limits of a pass, and the GPU that
    it was built on, where its kernels were chosen by timing them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpu: str
    engine_bytes: int
    weights_bytes: int
    max_rows: int
    max_tokens: int


def limits(config: Mapping[str, Any]) -> tuple[int, int]:
    """Most rows of a pass, and most tokens of a row, of a model with this ``config.json``."""
    positions = config.get("max_position_embeddings")
    tokens = min(positions, MOST_TOKENS) if isinstance(positions, int) else USUAL_TOKENS
    return max(1, MOST_TOKENS // tokens), tokens
