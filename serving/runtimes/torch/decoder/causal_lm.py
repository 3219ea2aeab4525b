"""A causal language model, its projections fused, and how it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from serving.runtimes.torch.conversions.input_moments import InputMoments
from serving.runtimes.torch.decoder.families.family import Form
from serving.runtimes.torch.decoder.rotary import Rotary
from serving.runtimes.torch.kernels.kernel_module import KernelModule
from serving.seams import Arrays

ConvertLinear = Callable[[nn.Linear, InputMoments | None], KernelModule]
MeasureInputs = Callable[[nn.Module, Sequence[Arrays]], Mapping[nn.Module, InputMoments]]


@dataclass(frozen=True, slots=True)
class Numerics:
    """How a recipe makes the parts of a decoder.

    Attributes:
        dtype: Type of the activations that go into linear layers.
        cache_dtype: Type of cached keys and values.
        linear: Converts a float32 linear layer; also gets the moments of its inputs, if they were
            measured.
        table: Converts the float32 embedding table.
        tied_head: Makes an output layer that shares the converted table.
        measure_inputs: Finds the moments of every linear layer's inputs for ``linear``, on texts to
            calibrate with, of which there are none unless the recipe calibrates; None if that does
            not care.
    """

    dtype: torch.dtype
    cache_dtype: torch.dtype
    linear: ConvertLinear
    table: Callable[[nn.Embedding], nn.Module]
    tied_head: Callable[[nn.Module], nn.Module]
    measure_inputs: MeasureInputs | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes that attention needs.

    Attributes:
        heads: Query heads.
        kv_heads: Key and value heads; divides ``heads``.
        width: Numbers per head.
        epsilon: Of the norms.
    """

    heads: int
    kv_heads: int
    width: int
    epsilon: float


LAYER_TENSORS = (
    "attention_norm",
    "attention_norm_bias",
    "after_attention_norm",
    "mlp_norm",
    "mlp_norm_bias",
    "after_mlp_norm",
    "head_norm",
)
"""float32 (hidden,), weights and biases of norms; ``head_norm`` is (heads + kv_heads, width), of
queries and keys. Which of them a layer has is the architecture's."""


class Layer(nn.Module):
    """One decoder layer, with queries, keys and values as one projection, and gate and up as one.

    Attributes:
        qkv: (hidden) to (heads + 2 kv_heads) * width.
        gate_up: Without a gate, up alone.
        rotary: Which of the model's positions turn its queries and keys.
    """

    def __init__(
        self,
        qkv: nn.Module,
        output: nn.Module,
        gate_up: nn.Module,
        down: nn.Module,
        tensors: Mapping[str, Tensor],
        rotary: int = 0,
    ) -> None:
        super().__init__()
        self.qkv, self.output, self.gate_up, self.down = qkv, output, gate_up, down
        self.rotary = rotary
        for name in LAYER_TENSORS:
            self.register_buffer(name, tensors.get(name))

    def tensors(self) -> dict[str, Tensor | None]:
        """``LAYER_TENSORS`` by name; None where it has none."""
        return {name: self._buffers[name] for name in LAYER_TENSORS}


class FusedModel(nn.Module):
    """Embedding, layers, last norm and output layer of a decoder.

    Attributes:
        form: How its layers compute.
        shape: Sizes for attention.
        rotaries: Its positions that turn.
        vocabulary: Number of logits.
        norm: float32 (hidden,), of the last norm; ``norm_bias`` likewise, or None.
        positions: float32 (positions, hidden), added to embeddings, or None.
        window: How many tokens its layers see at least; None if all.
        is_tied: Whether the output layer reads the table.
    """

    norm: Tensor
    norm_bias: Tensor | None
    positions: Tensor | None

    def __init__(
        self,
        form: Form,
        shape: Shape,
        rotaries: Sequence[Rotary],
        vocabulary: int,
        table: nn.Module,
        layers: list[Layer],
        norm: Tensor,
        norm_bias: Tensor | None,
        positions: Tensor | None,
        window: int | None,
        head: nn.Module,
        is_tied: bool,
    ) -> None:
        super().__init__()
        self.form, self.shape, self.rotaries = form, shape, tuple(rotaries)
        self.vocabulary, self.window, self.is_tied = vocabulary, window, is_tied
        self.table, self.layers, self.head = table, nn.ModuleList(layers), head
        self.register_buffer("norm", norm)
        self.register_buffer("norm_bias", norm_bias)
        self.register_buffer("positions", positions)
