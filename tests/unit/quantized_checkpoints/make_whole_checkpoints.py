"""Makes the tiny checkpoints that optimum-quanto and torchao write by themselves.

As ``make_checkpoints.py``, with optimum-quanto 0.2.7 and torchao 0.18 in an environment of their
own::

    python -m tests.unit.quantized_checkpoints.make_whole_checkpoints
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.unit.quantized_checkpoints.make_checkpoints import FOLDER, GROUP, Tensors, tiny_model


def quanto(name: str, kind: str, dtype: torch.dtype) -> None:
    """Written by the library itself, which groups inputs of layers that have more than 128."""
    from optimum.quanto import QLinear, QuantizedModelForCausalLM, qtypes

    model: Any = tiny_model(inner=160)
    model, folder = model.to(dtype), FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    made = QuantizedModelForCausalLM.quantize(model, weights=qtypes[kind], exclude="lm_head")
    made.save_pretrained(folder)
    save_expected(
        folder,
        {
            f"{layer}.weight": module.weight.dequantize()
            for layer, module in made.named_modules()
            if isinstance(module, QLinear)
        },
    )


def torchao(name: str, config: Any, dtype: torch.dtype, with_table: bool = False) -> None:
    """Written by transformers; the table of embeddings quantized, too, if asked for."""
    from torchao.utils import TorchAOBaseTensor
    from transformers import AutoModelForCausalLM, TorchAoConfig

    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    with TemporaryDirectory() as plain:
        tiny_model().save_pretrained(plain)
        model = AutoModelForCausalLM.from_pretrained(
            plain,
            dtype=dtype,
            quantization_config=TorchAoConfig(config, include_input_output_embeddings=with_table),
        )
    model.save_pretrained(folder)
    save_expected(
        folder,
        {
            name: _floats_of(weight)
            for name, weight in model.state_dict().items()
            if isinstance(weight, TorchAOBaseTensor)
        },
    )


def torchao_packed() -> None:
    """4 bits in half a byte.

    torchao rounds and packs them with mslk, of which there is no build for CPUs. What it packs as
    is written here anew; the formula is torchao's own, of its GPTQ.
    """
    from torchao.prototype.gptq import api
    from torchao.quantization import Int4WeightOnlyConfig
    from torchao.quantization.quantize_.workflows.int4 import int4_tensor

    def quantize(weight: Tensor, group: int) -> tuple[Tensor, Tensor, Tensor]:
        groups = weight.float().unflatten(1, (-1, group))
        low, high = groups.amin(2), groups.amax(2)
        scales = (high - low) / 15
        zeros = low + 8 * scales
        scales, zeros = (one.to(weight.dtype).float().T for one in (scales, zeros))
        codes = api._int4_row_quantize_zp_precomputed_qparams(weight, scales, zeros, group)
        return codes, scales, zeros

    def pack(codes: Tensor) -> Tensor:
        return codes[:, ::2] & 15 | codes[:, 1::2] << 4

    int4_tensor.int4_row_quantize_zp, int4_tensor.pack_int4 = quantize, pack
    torchao("torchao-int4", Int4WeightOnlyConfig(group_size=GROUP), torch.bfloat16)


def _floats_of(weight: Any) -> Tensor:
    """What torchao makes of a weight; one of 4 bits it multiplies with on GPUs only."""
    from torchao.prototype.gptq import api
    from torchao.quantization import Int4Tensor

    if not isinstance(weight, Int4Tensor):
        made: Tensor = weight.dequantize()
        return made
    low = (weight.qdata << 4) >> 4
    codes = torch.stack((low, weight.qdata >> 4), 2).flatten(1)
    scales, zeros = weight.scale.float(), weight.zero_point.float()
    whole: Tensor = api._int4_row_dequantize_zp(codes, scales, zeros, GROUP)
    return whole


def save_expected(folder: Path, weights: Tensors) -> None:
    save_file(
        {name: t.detach().contiguous() for name, t in weights.items()},
        folder / "expected.safetensors",
    )


def main() -> None:
    from torchao.quantization import (
        Float8WeightOnlyConfig,
        FqnToConfig,
        Int8DynamicActivationInt8WeightConfig,
        Int8DynamicActivationIntxWeightConfig,
        Int8WeightOnlyConfig,
        IntxWeightOnlyConfig,
        MappingType,
        PerGroup,
    )

    four_bits = getattr(torch, "int4")  # noqa: B009 (its stubs do not know it)
    quanto("quanto-int8", "qint8", torch.bfloat16)
    quanto("quanto-float8", "qfloat8", torch.bfloat16)
    quanto("quanto-int4", "qint4", torch.float32)
    quanto("quanto-int2", "qint2", torch.float32)
    torchao("torchao-int8", Int8WeightOnlyConfig(), torch.float32)
    torchao("torchao-int8-dynamic", Int8DynamicActivationInt8WeightConfig(), torch.bfloat16)
    torchao("torchao-float8", Float8WeightOnlyConfig(), torch.bfloat16)
    # What fine-tuning with its fake quantization ends in, too.
    torchao(
        "torchao-8da4w",
        Int8DynamicActivationIntxWeightConfig(
            weight_dtype=four_bits, weight_granularity=PerGroup(GROUP)
        ),
        torch.bfloat16,
    )
    torchao(
        "torchao-int4-asymmetric",
        IntxWeightOnlyConfig(
            weight_dtype=four_bits,
            granularity=PerGroup(GROUP),
            mapping_type=MappingType.ASYMMETRIC,
        ),
        torch.bfloat16,
    )
    by_name = {
        "_default": Int8DynamicActivationIntxWeightConfig(
            weight_dtype=four_bits, weight_granularity=PerGroup(GROUP)
        ),
        "model.embed_tokens": IntxWeightOnlyConfig(weight_dtype=torch.int8),
        "lm_head": None,
    }
    torchao("torchao-by-name", FqnToConfig(by_name), torch.bfloat16, with_table=True)
    torchao_packed()


if __name__ == "__main__":
    main()
