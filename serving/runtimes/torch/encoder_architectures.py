"""Encoders that a recipe cannot make. No torch: a configuration is checked quickly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.machine.isa import multiplies_bf16
from serving.seams import DeviceName

MIXES_TYPES = frozenset({"minimax", "openai-gpt"})
"""Tables of their own stay float32, so that bfloat16 layers meet float32 inputs and refuse them."""

HALF = ("bf16", "int4", "nf4", "fp8")
"""Recipes that compute in bfloat16 on CPUs that multiply it."""


def why_not_encoder(recipe: str, device: DeviceName, config: Mapping[str, Any]) -> str | None:
    """Say why an encoder with this ``config.json`` cannot be made in a recipe; None if it can."""
    kind = config.get("model_type")
    is_half = recipe in HALF and multiplies_bf16()
    if device == "cuda":
        is_half = recipe != "fp32"
    if kind in MIXES_TYPES and is_half:
        return f"{kind} mixes float32 with the 16 bits that {recipe} computes in"
    return None
