"""Which causal language models are converted; imports nothing heavy: ``check`` asks early."""

from __future__ import annotations

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
"""``model_type`` of the models whose conversion is tested, each against transformers."""


def why_not_architecture(model_type: str) -> str | None:
    """Say why no model of a type is converted; None if those of it are."""
    if model_type in ARCHITECTURES:
        return None
    return (
        f"generation on openvino knows the architectures {', '.join(ARCHITECTURES)}; "
        f"this checkpoint is {model_type!r}"
    )
