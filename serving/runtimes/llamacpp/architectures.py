"""Which models llama.cpp serves here; imports nothing heavy: checking a configuration asks it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.seams import CheckpointFormat

ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "phi": "phi2",
    "phi3": "phi3",
}
"""``model_type`` of a config.json, and what a GGUF file calls it.

llama.cpp knows many more. These attend to all of their cache with keys and values of every token,
which is what slots, their reuse and the size of the cache take for granted, and are tested.
"""


def why_not_model(config: Mapping[str, Any], file_format: CheckpointFormat) -> str | None:
    """Say why a checkpoint cannot be served; None if it can, or if nothing is known of it.

    Args:
        config: Its ``config.json``; of a GGUF file, ``model_type`` alone, by the file's own name.
        file_format: How its weights are written.
    """
    kind = config.get("model_type")
    if kind is None:
        return None
    known = sorted({*(ARCHITECTURES.values() if file_format == "gguf" else ARCHITECTURES)})
    if kind not in known:
        return (
            f"generation on llama.cpp knows the architectures {', '.join(known)}; this checkpoint "
            f"is {kind!r}"
        )
    if kind == "qwen3" and config.get("attention_bias"):
        return "llama.cpp knows no qwen3 with biases in attention, which this checkpoint has"
    return None
