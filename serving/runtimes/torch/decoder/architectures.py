"""Which models can be fused; imports no torch, so that a configuration is checked quickly."""

from __future__ import annotations

from typing import Any

from serving.errors import ConfigError

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
"""``model_type`` of the models that ``fuse`` knows: RMS norms before attention and a gated MLP,
rotary positions on whole heads."""


def check_architecture(config: Any) -> None:
    """Raise ``ConfigError`` unless ``fuse`` can convert a model with this transformers config."""
    kind = config.model_type
    if (reason := why_not_architecture(kind)) is not None:
        raise ConfigError(reason)
    refused = {
        "a sliding window": _uses_sliding_window(config),
        f"the activation {config.hidden_act!r}": config.hidden_act != "silu",
        "positions that depend on the length": _rope_type(config) in ("dynamic", "longrope"),
        "rotary positions on a part of each head": _rotated_share(config) != 1,
    }
    for what, is_there in refused.items():
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


def _uses_sliding_window(config: Any) -> bool:
    if getattr(config, "use_sliding_window", None) is False:
        return False
    return getattr(config, "sliding_window", None) is not None


def _rope_type(config: Any) -> str:
    return str((getattr(config, "rope_parameters", None) or {}).get("rope_type", "default"))


def _rotated_share(config: Any) -> float:
    parameters = getattr(config, "rope_parameters", None) or {}
    return float(parameters.get("partial_rotary_factor", 1.0))
