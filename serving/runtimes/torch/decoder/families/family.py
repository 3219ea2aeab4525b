"""What a family says of itself, so that ``fuse`` can take its models apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Activation = Literal["silu", "gelu", "gelu_tanh"]

ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
"""By the names that transformers has for them."""


@dataclass(frozen=True, slots=True)
class Form:
    """How every layer of a model computes, beside its weights.

    Attributes:
        norm: Of root mean squares, or with mean and bias.
        activation: Of the MLP.
        is_gated: Whether the MLP multiplies the activation with a second projection.
        is_parallel: Whether the MLP looks at what attention looks at, instead of at its result.
        score_cap: Scores of attention stay within it by a hyperbolic tangent; None leaves them.
        logit_cap: Likewise the logits.
        embedding_scale: What embeddings are multiplied with.
    """

    norm: Literal["rms", "layer"]
    activation: Activation
    is_gated: bool
    is_parallel: bool = False
    score_cap: float | None = None
    logit_cap: float | None = None
    embedding_scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Rows:
    """Outputs of a linear layer: all, or those that are named in their order."""

    linear: Any
    rows: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Norm:
    """A norm's module, and what is added to its weights before they multiply."""

    module: Any
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class LayerParts:
    """Where the parts of one layer of a transformers model are.

    Attributes:
        queries: Projection to all heads, one after the other; likewise keys and values.
        output: Linear layer from all heads.
        gate_up: Projections of the MLP: gate and up together or one after the other; one alone
            where it has no gate.
        down: Linear layer back.
        attention_norm: Before attention.
        mlp_norm: Before the MLP.
        after_attention_norm: Of what attention adds, if there is one; likewise of the MLP.
        query_norm: Of each head, before positions turn it, if there is one; likewise of keys.
        query_scale: What queries are multiplied with beside the usual ``width ** -0.5``.
        rotary: Which of the model's ``rotaries`` turns this layer.
    """

    queries: Rows
    keys: Rows
    values: Rows
    output: Any
    gate_up: tuple[Rows, ...]
    down: Any
    attention_norm: Norm
    mlp_norm: Norm
    after_attention_norm: Norm | None = None
    after_mlp_norm: Norm | None = None
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    query_scale: float = 1.0
    rotary: int = 0


@dataclass(frozen=True, slots=True)
class RotaryPart:
    """Frequencies, a tensor (pairs that turn,), and what lengths are multiplied with."""

    frequencies: Any
    scaling: float


@dataclass(frozen=True, slots=True)
class ModelParts:
    """Where the parts of a transformers model beside its layers are.

    Attributes:
        layers: ``nn.ModuleList``.
        table: ``nn.Embedding`` of tokens.
        norm: After the last layer.
        head: ``nn.Linear`` to the logits; shares the weight of ``table`` or does not.
        rotaries: Positions that turn queries and keys; none where ``positions`` are.
        positions: ``nn.Embedding`` of positions, added to that of tokens.
    """

    layers: Any
    table: Any
    norm: Norm
    head: Any
    rotaries: tuple[RotaryPart, ...] = ()
    positions: Any = None


@dataclass(frozen=True, slots=True)
class Family:
    """Models that are built alike. Each function takes transformers' own objects.

    Attributes:
        form: Of a configuration; may raise ``KeyError`` for an activation that is not known.
        model_parts: Of a model.
        layer_parts: Of a layer, its configuration and its place.
        refusals: What a configuration may have that is not known here, in words, and whether it
            has it.
        window: How many tokens the layers that see fewest see, of a ``config.json``; None if all
            see everything.
        make_ready: Changes a model in place before it is looked at; None if nothing is to do.
    """

    form: Callable[[Any], Form]
    model_parts: Callable[[Any], ModelParts]
    layer_parts: Callable[[Any, Any, int], LayerParts]
    refusals: Callable[[Any], Mapping[str, bool]]
    window: Callable[[Mapping[str, Any]], int | None] = lambda config: None
    make_ready: Callable[[Any], None] | None = None


def rotary_refusals(config: Any, turns_parts: bool = False) -> dict[str, bool]:
    """Positions that no frequencies of their own describe.

    Args:
        config: transformers' own.
        turns_parts: Whether the family's models can turn a part of each head.
    """
    parts = _rope_parts(config)
    kinds = {str(part.get("rope_type", "default")) for part in parts}
    is_part = any(float(part.get("partial_rotary_factor", 1.0)) != 1 for part in parts)
    return {
        "positions that depend on the length": bool(kinds & {"dynamic", "longrope"}),
        "rotary positions on a part of each head": is_part and not turns_parts,
    }


def _rope_parts(config: Any) -> list[Mapping[str, Any]]:
    """One for each kind of layers, or one for all."""
    parameters: Mapping[str, Any] = getattr(config, "rope_parameters", None) or {}
    by_kind: list[Mapping[str, Any]] = [
        part for part in parameters.values() if isinstance(part, dict)
    ]
    return by_kind or [parameters]


def sliding_window(config: Mapping[str, Any], default: int | None = None) -> int | None:
    """What a ``config.json`` says of windows; where it says nothing, ``default``."""
    if config.get("use_sliding_window") is False:
        return None
    window = config.get("sliding_window", default)
    return None if window is None else int(window)
