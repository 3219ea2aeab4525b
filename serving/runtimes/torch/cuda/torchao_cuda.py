"""The quantized variants on CUDA, by torchao's own recipes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torchao.core.config import AOBaseConfig
from torchao.quantization import (
    Int4WeightOnlyConfig,
    Int8DynamicActivationInt8WeightConfig,
    quantize_,
)

from serving.runtimes.torch.conversions.module_swap import cast_parameters, swap_modules
from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding


def int8_config() -> AOBaseConfig:
    """Return the recipe of int8 weights per output and int8 activations per token."""
    return Int8DynamicActivationInt8WeightConfig()


def int4_config(group_size: int) -> AOBaseConfig:
    """Return the recipe of 4-bit weights in groups, in the layout of the tinygemm kernel."""
    return Int4WeightOnlyConfig(group_size=group_size, int4_packing_format="tile_packed_to_4d")


def quantize_on_gpu(
    model: nn.Module,
    config: AOBaseConfig,
    is_quantized: Callable[[nn.Module], bool],
    device: str = "cuda",
) -> nn.Module:
    """Move a model to ``device`` in bfloat16 and quantize its linear layers and embeddings.

    Args:
        model: A float32 model on the CPU.
        config: The recipe for linear layers.
        is_quantized: Which linear layers it applies to; the others stay bfloat16.
        device: Where to put it.
    """
    swap_modules(model, _int8_embedding)
    cast_parameters(model, torch.bfloat16)
    model.to(device)
    quantize_(model, config, filter_fn=lambda module, _: is_quantized(module))
    return model


def _int8_embedding(module: nn.Module) -> nn.Module | None:
    return Int8Embedding.of(module, torch.bfloat16) if type(module) is nn.Embedding else None
