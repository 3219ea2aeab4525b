"""Which models can be fused; imports no torch, so that a configuration is checked quickly."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from serving.errors import ConfigError
from serving.runtimes.torch.decoder.families.family import Family

_FAMILIES = "serving.runtimes.torch.decoder.families"

ARCHITECTURES: Mapping[str, str] = {
    "llama": "llama:FAMILY",
    "mistral": "llama:MISTRAL",
    "qwen2": "llama:QWEN",
    "qwen3": "llama:QWEN",
    "gemma": "gemma:GEMMA",
    "gemma2": "gemma:GEMMA_2",
    "gemma3_text": "gemma:GEMMA_3",
    "phi3": "phi3:FAMILY",
    "gpt2": "gpt2:FAMILY",
    "gpt_neox": "gpt_neox:FAMILY",
}
"""By ``model_type``, the file of ``families`` that describes it, and the name in there."""


def family_of(model_type: str) -> Family:
    """The description of one of ``ARCHITECTURES``."""
    module, _, name = ARCHITECTURES[model_type].partition(":")
    family: Family = getattr(import_module(f"{_FAMILIES}.{module}"), name)
    return family


def check_architecture(config: Any) -> None:
    """Raise ``ConfigError`` unless ``fuse`` can convert a model with this transformers config."""
    kind = config.model_type
    if (reason := why_not_architecture(kind)) is not None:
        raise ConfigError(reason)
    family = family_of(kind)
    try:
        family.form(config)
    except KeyError as error:
        raise ConfigError(
            f"generation on the CPU does not know the activation {error}, which {kind} has here"
        ) from None
    for what, is_there in family.refusals(config).items():
        if is_there:
            raise ConfigError(f"generation on the CPU does not know {what}, which {kind} has here")


def why_not_architecture(kind: str) -> str | None:
    """Say why no model of a ``model_type`` can be fused; None if those of it can."""
    if kind in ARCHITECTURES:
        return None
    return (
        f"generation on the CPU knows the architectures {', '.join(ARCHITECTURES)}; "
        f"this checkpoint is {kind!r}"
    )


def why_not_so_long(config: Mapping[str, Any], max_tokens: int) -> str | None:
    """Say why sequences of a length cannot be served; None if they can.

    Args:
        config: A checkpoint's ``config.json``, of one of ``ARCHITECTURES``.
        max_tokens: Most tokens of a sequence.
    """
    window = family_of(config["model_type"]).window(config)
    if window is None or window >= max_tokens:
        return None
    return (
        f"layers of this checkpoint see the latest {window} tokens, and sequences may have "
        f"{max_tokens}; generation on the CPU has no such windows: give the model max_tokens of "
        f"{window} or fewer"
    )
