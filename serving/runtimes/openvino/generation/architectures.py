"""Which causal language models are converted; imports nothing heavy: ``check`` asks early."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.runtimes.torch.decoder.architectures import family_of

ARCHITECTURES = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma3_text",
    "phi3",
    "gpt2",
    "gpt_neox",
)
"""``model_type`` of the models whose conversion is tested, each against transformers."""


def why_not_architecture(model_type: str) -> str | None:
    """Say why no model of a type is converted; None if those of it are."""
    if model_type in ARCHITECTURES:
        return None
    return (
        f"generation on openvino knows the architectures {', '.join(ARCHITECTURES)}; "
        f"this checkpoint is {model_type!r}"
    )


def window_of(config: Mapping[str, Any]) -> int | None:
    """How many tokens the layers that see fewest see; None if all see everything.

    The pass to paged attention does not find windows in what is traced.
    """
    return family_of(config["model_type"]).window(config)


def why_not_so_long(window: int | None, max_tokens: int) -> str | None:
    """Say why sequences of a length cannot be served; None if they can."""
    if window is None or window >= max_tokens:
        return None
    return (
        f"layers of this checkpoint see the latest {window} tokens, and sequences may have "
        f"{max_tokens}; generation on openvino has no such windows: give the model max_tokens of "
        f"{window} or fewer"
    )
