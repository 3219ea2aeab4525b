"""Phi-3: as Llama, but projections are stored together and a part of each head may turn."""

from __future__ import annotations

from functools import partial
from typing import Any

from serving.runtimes.torch.decoder.families import llama
from serving.runtimes.torch.decoder.families.family import (
    Family,
    LayerParts,
    Norm,
    Rows,
    rotary_refusals,
    sliding_window,
)


def layer_parts(layer: Any, config: Any, index: int) -> LayerParts:
    """See ``Family``."""
    attention, mlp = layer.self_attn, layer.mlp
    ends = [
        config.num_attention_heads * attention.head_dim,
        (config.num_attention_heads + config.num_key_value_heads) * attention.head_dim,
        attention.qkv_proj.out_features,
    ]
    queries, keys, values = (
        Rows(attention.qkv_proj, range(start, end))
        for start, end in zip([0, *ends], ends, strict=False)
    )
    return LayerParts(
        queries=queries,
        keys=keys,
        values=values,
        output=attention.o_proj,
        gate_up=(Rows(mlp.gate_up_proj),),
        down=mlp.down_proj,
        attention_norm=Norm(layer.input_layernorm),
        mlp_norm=Norm(layer.post_attention_layernorm),
    )


FAMILY = Family(
    llama.form,
    llama.model_parts,
    layer_parts,
    partial(rotary_refusals, turns_parts=True),
    sliding_window,
)
