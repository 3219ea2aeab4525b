"""From a transformers model to a fused one, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from serving.runtimes.torch.conversions.input_moments import InputMoments
from serving.runtimes.torch.decoder.architectures import check_architecture, family_of
from serving.runtimes.torch.decoder.causal_lm import (
    ConvertLinear,
    FusedModel,
    Layer,
    Numerics,
    Shape,
)
from serving.runtimes.torch.decoder.families.family import LayerParts, Norm, Rows
from serving.runtimes.torch.decoder.rotary import no_rotary, rotary_of
from serving.runtimes.torch.kernels.kernel_module import KernelModule
from serving.runtimes.torch.low_rank import Beside, join_low_ranks, low_rank_of, set_low_rank
from serving.seams import Arrays


def fuse(
    model: Any, numerics: Numerics, texts: Sequence[Arrays] = (), beside: Beside | None = None
) -> FusedModel:
    """Convert a float32 transformers model, taking it apart as it goes.

    Layers are converted one by one and let go of, so that the peak is the float32 model and one
    layer. ``model`` is of no use afterwards.

    Args:
        model: A float32 transformers model on the CPU.
        numerics: How its parts are made.
        texts: What its layers' inputs are measured on, each ``input_ids`` (1, tokens); empty unless
            the recipe calibrates.
        beside: An adapter that stays beside the converted layers; None without one.

    Raises:
        ConfigError: See ``check_architecture``.
    """
    config = model.config
    check_architecture(config)
    family = family_of(config.model_type)
    if family.make_ready is not None:
        family.make_ready(model)
    if beside is not None:
        for path, low_rank in beside.low_ranks.items():
            set_low_rank(model.get_submodule(path), low_rank)
    convert = partial(_convert, numerics.linear, beside)
    inputs = dict(numerics.measure_inputs(model, texts)) if numerics.measure_inputs else {}
    parts = family.model_parts(model)
    shape = _shape(config, family.layer_parts(parts.layers[0], config, 0))
    rotated = 2 * max((len(part.frequencies) for part in parts.rotaries), default=0)
    layers = []
    for index in range(len(parts.layers)):
        part = family.layer_parts(parts.layers[index], config, index)
        layers.append(_fuse_layer(part, shape, rotated, convert, inputs))
        for module in parts.layers[index].modules():
            inputs.pop(module, None)  # as a key it would stay
        parts.layers[index] = nn.Identity()
        del part
    head = parts.head
    is_tied = head.weight is parts.table.weight
    table = numerics.table(_plain(parts.table))
    rotaries = [rotary_of(part, shape.width) for part in parts.rotaries]
    return FusedModel(
        form=family.form(config),
        shape=shape,
        rotaries=rotaries or [no_rotary(shape.width)],
        vocabulary=head.out_features,
        table=table,
        layers=layers,
        norm=_weight(parts.norm),
        norm_bias=_bias(parts.norm),
        positions=None if parts.positions is None else _copy(parts.positions.weight),
        window=family.window(config.to_dict()),
        head=numerics.tied_head(table) if is_tied else convert(head, inputs.get(head)),
        is_tied=is_tied,
    )


def _convert(
    convert: ConvertLinear, beside: Beside | None, linear: nn.Linear, inputs: InputMoments | None
) -> KernelModule:
    """Convert a layer, and put beside it what it carries."""
    converted, low_rank = convert(linear, inputs), low_rank_of(linear)
    if beside is None or low_rank is None:
        return converted
    return beside.around(converted, low_rank)


def _plain(table: nn.Embedding) -> nn.Embedding:
    """The same numbers, without what a subclass would do to them."""
    rows, width = table.weight.shape
    return nn.Embedding(rows, width, _weight=table.weight, _freeze=True)


def _shape(config: Any, part: LayerParts) -> Shape:
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    epsilons = ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps")
    return Shape(
        heads=heads,
        kv_heads=_num_outputs(part.keys) // width,
        width=width,
        epsilon=next(getattr(config, name) for name in epsilons if hasattr(config, name)),
    )


def _fuse_layer(
    part: LayerParts,
    shape: Shape,
    rotated: int,
    convert: ConvertLinear,
    inputs: Mapping[nn.Module, InputMoments],
) -> Layer:
    order, spread = _pair_order(shape.width, rotated), _spread_order(shape)
    queries, keys = _take(part.queries), _take(part.keys)
    if part.query_norm is None:
        queries = _scaled(queries, part.query_scale)
    q = _reorder_outputs(_pair_up(queries, order), spread)
    k = _pair_up(keys, order)
    output = _linear(part.output.weight[:, spread], part.output.bias)
    if (low_rank := low_rank_of(part.output)) is not None:
        set_low_rank(output, low_rank.of_inputs(spread))
    of_output = inputs.get(part.output)
    gate_up = [_take(rows) for rows in part.gate_up]
    return Layer(
        qkv=convert(_join([q, k, _take(part.values)]), inputs.get(part.queries.linear)),
        output=convert(output, None if of_output is None else of_output.reordered(spread)),
        gate_up=convert(_join(gate_up), inputs.get(part.gate_up[0].linear)),
        down=convert(part.down, inputs.get(part.down)),
        tensors=_layer_tensors(part, shape, order),
        rotary=part.rotary,
    )


def _layer_tensors(part: LayerParts, shape: Shape, order: Tensor) -> dict[str, Tensor]:
    found = {
        "attention_norm": _weight(part.attention_norm),
        "attention_norm_bias": _bias(part.attention_norm),
        "mlp_norm": _weight(part.mlp_norm),
        "mlp_norm_bias": _bias(part.mlp_norm),
    }
    if part.after_attention_norm is not None and part.after_mlp_norm is not None:
        found["after_attention_norm"] = _weight(part.after_attention_norm)
        found["after_mlp_norm"] = _weight(part.after_mlp_norm)
    if part.query_norm is not None and part.key_norm is not None:
        queries = _weight(part.query_norm)[order] * part.query_scale
        keys = _weight(part.key_norm)[order]
        found["head_norm"] = torch.cat(
            [queries.expand(shape.heads, -1), keys.expand(shape.kv_heads, -1)]
        )
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def _num_outputs(rows: Rows) -> int:
    return rows.linear.out_features if rows.rows is None else len(rows.rows)


def _take(rows: Rows) -> nn.Linear:
    linear: nn.Linear = rows.linear
    if rows.rows is None:
        return linear
    return _reorder_outputs(linear, torch.tensor(list(rows.rows)))


def _scaled(linear: nn.Linear, scale: float) -> nn.Linear:
    if scale == 1:
        return linear
    bias = None if linear.bias is None else linear.bias * scale
    scaled, low_rank = _linear(linear.weight * scale, bias), low_rank_of(linear)
    set_low_rank(scaled, low_rank and low_rank.scaled(scale))
    return scaled


def _pair_up(linear: nn.Linear, order: Tensor) -> nn.Linear:
    """Reorder the outputs of each head so that numbers that turn together stand together.

    transformers turns number i with i + n / 2 of the n that turn; side by side they are one complex
    number. The product of query and key does not change.
    """
    numbers = torch.arange(linear.out_features).view(-1, len(order))
    return _reorder_outputs(linear, numbers[:, order].flatten())


def _spread_order(shape: Shape) -> Tensor:
    """Order of a query's numbers in which heads that share a key no longer stand together.

    A step's queries of one key are then evenly spaced in memory, over tokens and heads alike, and
    attention needs no copy to bring them together or to part them again.
    """
    numbers = torch.arange(shape.heads * shape.width)
    by_head = numbers.view(shape.kv_heads, -1, shape.width)
    return by_head.transpose(0, 1).flatten()


def _pair_order(width: int, rotated: int) -> Tensor:
    pairs = torch.arange(rotated).view(2, -1).t().flatten()
    return torch.cat([pairs, torch.arange(rotated, width)])


def _join(linears: list[nn.Linear]) -> nn.Linear:
    biases = [linear.bias for linear in linears if linear.bias is not None]
    weight = torch.cat([linear.weight for linear in linears])
    joined = _linear(weight, torch.cat([*biases]) if biases else None)
    set_low_rank(joined, join_low_ranks(linears))
    return joined


def _reorder_outputs(linear: nn.Linear, order: Tensor) -> nn.Linear:
    bias = None if linear.bias is None else linear.bias[order]
    ordered, low_rank = _linear(linear.weight[order], bias), low_rank_of(linear)
    set_low_rank(ordered, low_rank and low_rank.of_outputs(order))
    return ordered


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    outputs, inputs = weight.shape
    # On "meta", because a layer that is made elsewhere draws random numbers first.
    linear = nn.Linear(inputs, outputs, bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear


def _weight(norm: Norm) -> Tensor:
    return _copy(norm.module.weight + norm.offset if norm.offset else norm.module.weight)


def _bias(norm: Norm) -> Tensor | None:
    bias = getattr(norm.module, "bias", None)
    return None if bias is None else _copy(bias)


def _copy(weight: Tensor) -> Tensor:
    # As loaded it is a view of the mapped file, all of which it would keep resident.
    return weight.detach().float().clone()
