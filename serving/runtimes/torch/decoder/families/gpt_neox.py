"""GPT-NeoX and Pythia: norms with mean and bias, positions that turn a part of each head, no gate.

Queries, keys and values of a head are stored side by side; the MLP may run beside attention.
"""

from __future__ import annotations

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
)


def form(config: Any) -> Form:
    """See ``Family``; likewise below."""
    return Form(
        "layer",
        ACTIVATIONS[config.hidden_act],
        is_gated=False,
        is_parallel=config.use_parallel_residual,
    )


def model_parts(model: Any) -> ModelParts:
    body, rotary = model.gpt_neox, model.gpt_neox.rotary_emb
    return ModelParts(
        body.layers,
        body.embed_in,
        Norm(body.final_layer_norm),
        model.lm_head,
        (RotaryPart(rotary.inv_freq, float(rotary.attention_scaling)),),
    )


def layer_parts(layer: Any, config: Any, index: int) -> LayerParts:
    joined, heads = layer.attention.query_key_value, config.num_attention_heads
    width = config.hidden_size // heads
    queries, keys, values = (
        Rows(joined, [h * 3 * width + part * width + i for h in range(heads) for i in range(width)])
        for part in range(3)
    )
    return LayerParts(
        queries=queries,
        keys=keys,
        values=values,
        output=layer.attention.dense,
        gate_up=(Rows(layer.mlp.dense_h_to_4h),),
        down=layer.mlp.dense_4h_to_h,
        attention_norm=Norm(layer.input_layernorm),
        mlp_norm=Norm(layer.post_attention_layernorm),
    )


FAMILY = Family(form, model_parts, layer_parts, partial(rotary_refusals, turns_parts=True))
