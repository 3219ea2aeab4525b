"""Llama, Mistral and Qwen: RMS norms before attention and a gated MLP, rotary positions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from serving.runtimes.torch.decoder.families.family import (
    ACTIVATIONS,
    Family,
    Form,
    LayerParts,
    ModelParts,
    Norm,
    RotaryPart,
    Rows,
    rotary_refusals,
    sliding_window,
)


def form(config: Any) -> Form:
    """See ``Family``; likewise below."""
    return Form("rms", ACTIVATIONS[config.hidden_act], is_gated=True)


def model_parts(model: Any) -> ModelParts:
    body, rotary = model.model, model.model.rotary_emb
    return ModelParts(
        body.layers,
        body.embed_tokens,
        Norm(body.norm),
        model.lm_head,
        (RotaryPart(rotary.inv_freq, float(rotary.attention_scaling)),),
    )


def layer_parts(layer: Any, config: Any, index: int) -> LayerParts:
    attention, mlp = layer.self_attn, layer.mlp
    has_head_norms = hasattr(attention, "q_norm")
    return LayerParts(
        queries=Rows(attention.q_proj),
        keys=Rows(attention.k_proj),
        values=Rows(attention.v_proj),
        output=attention.o_proj,
        gate_up=(Rows(mlp.gate_proj), Rows(mlp.up_proj)),
        down=mlp.down_proj,
        attention_norm=Norm(layer.input_layernorm),
        mlp_norm=Norm(layer.post_attention_layernorm),
        query_norm=Norm(attention.q_norm) if has_head_norms else None,
        key_norm=Norm(attention.k_norm) if has_head_norms else None,
    )


def qwen_window(config: Mapping[str, Any]) -> int | None:
    """Qwen has a window only where it says so."""
    return sliding_window(config) if config.get("use_sliding_window", False) else None


FAMILY = Family(form, model_parts, layer_parts, rotary_refusals)
MISTRAL = Family(
    form, model_parts, layer_parts, rotary_refusals, partial(sliding_window, default=4_096)
)
QWEN = Family(form, model_parts, layer_parts, rotary_refusals, qwen_window)
