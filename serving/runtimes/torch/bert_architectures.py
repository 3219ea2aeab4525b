"""Which models graphs are written of. No torch: a configuration is checked quickly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ARCHITECTURES = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert")
"""``model_type`` of configurations: tables, BERT's layers, and a classifier on the first token."""

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "tanh")
"""transformers' names of them."""


def why_not_bert(config: Mapping[str, Any], runtime: str) -> str | None:
    """Say why a runtime cannot make a model with this ``config.json``; None if it can.

    A configuration without a ``model_type`` is about no checkpoint in particular.
    """
    kind = config.get("model_type")
    if kind is not None and kind not in ARCHITECTURES:
        return f"{runtime} has no form of {kind}; it has {', '.join(ARCHITECTURES)}"
    if config.get("is_decoder"):
        return f"in {runtime} every token sees every other; this checkpoint's see those before them"
    activation = config.get("activation" if kind == "distilbert" else "hidden_act")
    if kind is not None and activation is not None and activation not in ACTIVATIONS:
        return f"{runtime} has no activation {activation}; it has {', '.join(ACTIVATIONS)}"
    return None
