"""GPT-2: norms with mean and bias, learned positions, no gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.runtimes.torch.decoder.families.family import (
    ACTIVATIONS,
    Family,
    Form,
    LayerParts,
    ModelParts,
    Norm,
    Rows,
)


def make_ready(model: Any) -> None:
    """Turn the transposed layers that GPT-2 alone has into linear ones."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Conv1D):
                inputs, outputs = child.weight.shape
                linear = nn.Linear(inputs, outputs, device="meta")
                linear.weight = nn.Parameter(child.weight.t().contiguous(), requires_grad=False)
                linear.bias = child.bias
                setattr(parent, name, linear)


def form(config: Any) -> Form:
    """See ``Family``; likewise below."""
    return Form("layer", ACTIVATIONS[config.activation_function], is_gated=False)


def model_parts(model: Any) -> ModelParts:
    body = model.transformer
    return ModelParts(body.h, body.wte, Norm(body.ln_f), model.lm_head, positions=body.wpe)


def layer_parts(layer: Any, config: Any, index: int) -> LayerParts:
    joined, hidden = layer.attn.c_attn, config.hidden_size
    queries, keys, values = (Rows(joined, range(i * hidden, (i + 1) * hidden)) for i in range(3))
    is_scaled = config.scale_attn_weights
    return LayerParts(
        queries=queries,
        keys=keys,
        values=values,
        output=layer.attn.c_proj,
        gate_up=(Rows(layer.mlp.c_fc),),
        down=layer.mlp.c_proj,
        attention_norm=Norm(layer.ln_1),
        mlp_norm=Norm(layer.ln_2),
        query_scale=1.0 if is_scaled else (hidden / config.num_attention_heads) ** 0.5,
    )


def refusals(config: Any) -> Mapping[str, bool]:
    return {
        "scores divided by the number of the layer": config.scale_attn_by_inverse_layer_idx,
        "attention to another text": config.add_cross_attention,
    }


FAMILY = Family(form, model_parts, layer_parts, refusals, make_ready=make_ready)
