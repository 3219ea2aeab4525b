"""From a transformers model to a fused one, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from serving.runtimes.torch.decoder.architectures import check_architecture
from serving.runtimes.torch.decoder.causal_lm import (
    ConvertLinear,
    FusedModel,
    Layer,
    Numerics,
    Shape,
)
from serving.runtimes.torch.decoder.rotary import rotary_of


def fuse(model: Any, numerics: Numerics) -> FusedModel:
    """Convert a float32 transformers model, taking it apart as it goes.

    Layers are converted one by one and let go of, so that the peak is the float32 model and one
    layer. ``model`` is of no use afterwards.

    Args:
        model: A float32 transformers model on the CPU.
        numerics: How its parts are made.

    Raises:
        ConfigError: See ``check_architecture``.
    """
    config = model.config
    check_architecture(config)
    shape = Shape(
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        width=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        epsilon=config.rms_norm_eps,
    )
    importance = dict(numerics.measure_importance(model)) if numerics.measure_importance else {}
    body, head = model.model, model.lm_head
    layers = []
    for index in range(len(body.layers)):
        layers.append(_fuse_layer(body.layers[index], shape, numerics.linear, importance))
        for module in body.layers[index].modules():
            importance.pop(module, None)  # as a key it would stay
        body.layers[index] = nn.Identity()
    is_tied = head.weight is body.embed_tokens.weight
    table = numerics.table(body.embed_tokens)
    return FusedModel(
        shape=shape,
        rotary=rotary_of(model),
        vocabulary=head.out_features,
        table=table,
        layers=layers,
        norm=_copy(body.norm.weight),
        head=numerics.tied_head(table) if is_tied else numerics.linear(head, importance.get(head)),
        is_tied=is_tied,
    )


def _fuse_layer(
    layer: Any, shape: Shape, convert: ConvertLinear, importance: Mapping[nn.Module, Tensor]
) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    width = shape.width
    spread = _spread_order(shape)
    q = _reorder_outputs(_pair_up(attention.q_proj, width), spread)
    k = _pair_up(attention.k_proj, width)
    output = _linear(attention.o_proj.weight[:, spread], attention.o_proj.bias)
    output_mass = importance.get(attention.o_proj)
    head_norm = None
    if hasattr(attention, "q_norm"):
        order = _pair_order(width)
        head_norm = torch.cat(
            [
                attention.q_norm.weight.detach()[order].expand(shape.heads, -1),
                attention.k_norm.weight.detach()[order].expand(shape.kv_heads, -1),
            ]
        ).float()
    return Layer(
        qkv=convert(_join([q, k, attention.v_proj]), importance.get(attention.q_proj)),
        output=convert(output, None if output_mass is None else output_mass[spread]),
        gate_up=convert(_join([mlp.gate_proj, mlp.up_proj]), importance.get(mlp.gate_proj)),
        down=convert(mlp.down_proj, importance.get(mlp.down_proj)),
        attention_norm=_copy(layer.input_layernorm.weight),
        mlp_norm=_copy(layer.post_attention_layernorm.weight),
        head_norm=head_norm,
    )


def _pair_up(linear: nn.Linear, width: int) -> nn.Linear:
    """Reorder the outputs of each head so that numbers that turn together stand together.

    transformers turns number i with i + width / 2; side by side they are one complex number. The
    product of query and key does not change.
    """
    numbers = torch.arange(linear.out_features).view(-1, width)
    return _reorder_outputs(linear, numbers[:, _pair_order(width)].flatten())


def _spread_order(shape: Shape) -> Tensor:
    """Order of a query's numbers in which heads that share a key no longer stand together.

    A step's queries of one key are then evenly spaced in memory, over tokens and heads alike, and
    attention needs no copy to bring them together or to part them again.
    """
    numbers = torch.arange(shape.heads * shape.width)
    by_head = numbers.view(shape.kv_heads, -1, shape.width)
    return by_head.transpose(0, 1).flatten()


def _pair_order(width: int) -> Tensor:
    return torch.arange(width).view(2, -1).t().flatten()


def _join(linears: list[nn.Linear]) -> nn.Linear:
    biases = [linear.bias for linear in linears if linear.bias is not None]
    weight = torch.cat([linear.weight for linear in linears])
    return _linear(weight, torch.cat([*biases]) if biases else None)


def _reorder_outputs(linear: nn.Linear, order: Tensor) -> nn.Linear:
    return _linear(linear.weight[order], None if linear.bias is None else linear.bias[order])


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    outputs, inputs = weight.shape
    # On "meta", because a layer that is made elsewhere draws random numbers first.
    linear = nn.Linear(inputs, outputs, bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear


def _copy(weight: Tensor) -> Tensor:
    # As loaded it is a view of the mapped file, all of which it would keep resident.
    return weight.detach().float().clone()
