"""A causal language model of the Llama family with its projections fused, ready for a variant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from serving.errors import ConfigError

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
"""``model_type`` of the models that ``fuse`` knows: RMS norms before attention and a gated MLP,
rotary positions on whole heads."""


ConvertLinear = Callable[[nn.Linear, Tensor | None], nn.Module]


@dataclass(frozen=True, slots=True)
class Numerics:
    """How a variant makes the parts of a decoder.

    Attributes:
        dtype: Type of the activations that go into linear layers.
        cache_dtype: Type of cached keys and values.
        linear: Converts a float32 linear layer; also gets the mean square of each of its inputs,
            float32 (in,), if they were measured.
        table: Converts the float32 embedding table.
        tied_head: Makes an output layer that shares the converted table.
        measure_importance: Finds the mean square of each input of every linear layer, float32
            (in,), for ``linear``; None if that does not care.
    """

    dtype: torch.dtype
    cache_dtype: torch.dtype
    linear: ConvertLinear
    table: Callable[[nn.Embedding], nn.Module]
    tied_head: Callable[[nn.Module], nn.Module]
    measure_importance: Callable[[nn.Module], Mapping[nn.Module, Tensor]] | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes that attention needs.

    Attributes:
        heads: Query heads.
        kv_heads: Key and value heads; divides ``heads``.
        width: Numbers per head.
        epsilon: Of the RMS norms.
    """

    heads: int
    kv_heads: int
    width: int
    epsilon: float


class Layer(nn.Module):
    """One decoder layer, with queries, keys and values as one projection, and gate and up as one.

    Attributes:
        qkv: (hidden) to (heads + 2 kv_heads) * width.
        head_norm: float32 (heads + kv_heads, width), weights of a norm on queries and keys, or
            None where the architecture has none.
    """

    head_norm: Tensor | None

    def __init__(
        self,
        qkv: nn.Module,
        output: nn.Module,
        gate_up: nn.Module,
        down: nn.Module,
        attention_norm: Tensor,
        mlp_norm: Tensor,
        head_norm: Tensor | None,
    ) -> None:
        super().__init__()
        self.qkv, self.output, self.gate_up, self.down = qkv, output, gate_up, down
        self.register_buffer("attention_norm", attention_norm)
        self.register_buffer("mlp_norm", mlp_norm)
        self.register_buffer("head_norm", head_norm)


class FusedModel(nn.Module):
    """Embedding, layers, last norm and output layer of a decoder.

    Attributes:
        shape: Sizes for attention.
        vocabulary: Number of logits.
    """

    norm: Tensor

    def __init__(
        self,
        shape: Shape,
        vocabulary: int,
        table: nn.Module,
        layers: list[Layer],
        norm: Tensor,
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.shape, self.vocabulary = shape, vocabulary
        self.table, self.layers, self.head = table, nn.ModuleList(layers), head
        self.register_buffer("norm", norm)


def check_architecture(config: Any) -> None:
    """Raise ``ConfigError`` unless ``fuse`` can convert a model with this transformers config."""
    kind = config.model_type
    if kind not in ARCHITECTURES:
        raise ConfigError(
            f"generation on the CPU knows the architectures {', '.join(ARCHITECTURES)}; "
            f"this checkpoint is {kind!r}"
        )
    refused = {
        "a sliding window": _uses_sliding_window(config),
        f"the activation {config.hidden_act!r}": config.hidden_act != "silu",
        "positions that depend on the length": _rope_type(config) in ("dynamic", "longrope"),
        "rotary positions on a part of each head": _rotated_share(config) != 1,
    }
    for what, is_there in refused.items():
        if is_there:
            raise ConfigError(f"generation on the CPU does not know {what}, which {kind} has here")


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
        vocabulary=head.out_features,
        table=table,
        layers=layers,
        norm=_copy(body.norm.weight),
        head=numerics.tied_head(table) if is_tied else numerics.linear(head, importance.get(head)),
    )


def rotations(model: Any, positions: int) -> Tensor:
    """Unit complex numbers by which positions turn pairs of a query's or key's numbers.

    Args:
        model: The transformers model, whose own module knows how its frequencies are scaled.
        positions: How many.

    Returns:
        complex64 (positions, width / 2); of length one but for an attention scaling, as YaRN has.
    """
    rotary = model.model.rotary_emb
    cos, sin = rotary(torch.zeros(1), torch.arange(positions)[None])
    half = cos.shape[-1] // 2
    return torch.complex(cos[0, :, :half].float(), sin[0, :, :half].float())


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


def _uses_sliding_window(config: Any) -> bool:
    if getattr(config, "use_sliding_window", None) is False:
        return False
    return getattr(config, "sliding_window", None) is not None


def _rope_type(config: Any) -> str:
    return str((getattr(config, "rope_parameters", None) or {}).get("rope_type", "default"))


def _rotated_share(config: Any) -> float:
    parameters = getattr(config, "rope_parameters", None) or {}
    return float(parameters.get("partial_rotary_factor", 1.0))
