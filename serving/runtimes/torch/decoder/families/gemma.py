"""Gemma 1 to 3: norms of ``1 + weight``, scaled embeddings; from 2 on also norms of what is added.

Gemma 2 caps scores and logits; Gemma 3 has norms of heads, and positions of its own in layers that
see a window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from serving.runtimes.torch.decoder.families import llama
from serving.runtimes.torch.decoder.families.family import (
    ACTIVATIONS,
    Family,
    Form,
    LayerParts,
    ModelParts,
    Norm,
    RotaryPart,
    rotary_refusals,
    sliding_window,
)

OFFSET = 1.0
LAYER_KINDS = ("sliding_attention", "full_attention")


def form(config: Any) -> Form:
    """See ``Family``; likewise below."""
    activation = getattr(config, "hidden_activation", None) or config.hidden_act
    return Form(
        "rms",
        ACTIVATIONS[activation],
        is_gated=True,
        score_cap=getattr(config, "attn_logit_softcapping", None),
        logit_cap=getattr(config, "final_logit_softcapping", None),
        embedding_scale=float(config.hidden_size**0.5),
    )


def model_parts(model: Any) -> ModelParts:
    return replace(llama.model_parts(model), norm=Norm(model.model.norm, OFFSET))


def layer_parts(layer: Any, config: Any, index: int) -> LayerParts:
    parts = llama.layer_parts(layer, config, index)
    return replace(
        parts,
        attention_norm=Norm(layer.input_layernorm, OFFSET),
        mlp_norm=Norm(layer.post_attention_layernorm, OFFSET),
    )


def model_parts_3(model: Any) -> ModelParts:
    body, rotary = model.model, model.model.rotary_emb
    rotaries = tuple(
        RotaryPart(
            getattr(rotary, f"{kind}_inv_freq"), float(getattr(rotary, f"{kind}_attention_scaling"))
        )
        for kind in LAYER_KINDS
    )
    return ModelParts(
        body.layers, body.embed_tokens, Norm(body.norm, OFFSET), model.lm_head, rotaries
    )


def layer_parts_2(layer: Any, config: Any, index: int) -> LayerParts:
    parts = llama.layer_parts(layer, config, index)
    head_norms = parts.query_norm, parts.key_norm
    query_norm, key_norm = (norm and Norm(norm.module, OFFSET) for norm in head_norms)
    return replace(
        parts,
        attention_norm=Norm(layer.input_layernorm, OFFSET),
        after_attention_norm=Norm(layer.post_attention_layernorm, OFFSET),
        mlp_norm=Norm(layer.pre_feedforward_layernorm, OFFSET),
        after_mlp_norm=Norm(layer.post_feedforward_layernorm, OFFSET),
        query_norm=query_norm,
        key_norm=key_norm,
        query_scale=(config.head_dim / config.query_pre_attn_scalar) ** 0.5,
    )


def layer_parts_3(layer: Any, config: Any, index: int) -> LayerParts:
    rotary = LAYER_KINDS.index(config.layer_types[index])
    return replace(layer_parts_2(layer, config, index), rotary=rotary)


def refusals(config: Any) -> Mapping[str, bool]:
    both_ways = bool(getattr(config, "use_bidirectional_attention", False))
    return {**rotary_refusals(config), "attention to later tokens": both_ways}


_WINDOW = partial(sliding_window, default=4_096)

GEMMA = Family(form, model_parts, layer_parts, refusals)
GEMMA_2 = Family(form, model_parts, layer_parts_2, refusals, _WINDOW)
GEMMA_3 = Family(form, model_parts_3, layer_parts_3, refusals, _WINDOW)
