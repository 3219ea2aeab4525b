"""A causal language model of the Llama family, its projections fused, and how it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from serving.runtimes.torch.decoder.rotary import Rotary
from serving.runtimes.torch.kernels.kernel_module import KernelModule

ConvertLinear = Callable[[nn.Linear, Tensor | None], KernelModule]


@dataclass(frozen=True, slots=True)
class Numerics:
    """How a recipe makes the parts of a decoder.

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
        rotary: Its positions.
        vocabulary: Number of logits.
        is_tied: Whether the output layer reads the table.
    """

    norm: Tensor

    def __init__(
        self,
        shape: Shape,
        rotary: Rotary,
        vocabulary: int,
        table: nn.Module,
        layers: list[Layer],
        norm: Tensor,
        head: nn.Module,
        is_tied: bool,
    ) -> None:
        super().__init__()
        self.shape, self.rotary = shape, rotary
        self.vocabulary, self.is_tied = vocabulary, is_tied
        self.table, self.layers, self.head = table, nn.ModuleList(layers), head
        self.register_buffer("norm", norm)
