"""Makes the tiny checkpoints of this folder with the libraries that define their forms.

Not run by the tests: it wants compressed-tensors 0.20, bitsandbytes 0.50, gptqmodel 7.7, hqq 0.2
and AutoAWQ 0.2.9 (its ``packing_utils``) in an environment of their own::

    python -m tests.unit.quantized_checkpoints.make_checkpoints

Each checkpoint is a Llama of one layer. ``expected.safetensors`` holds what its library makes of
every quantized weight, in the type that the library computes in.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

FOLDER = Path(__file__).parent / "checkpoints"
GROUP = 32

Tensors = dict[str, Tensor]
Quantize = Callable[[nn.Linear], tuple[Tensors, Tensor]]
"""From a layer to its parts by their names in it, and the weight that they stand for."""


def tiny_model(inner: int = 128, key_heads: int = 1) -> LlamaForCausalLM:
    """A Llama of one layer, whose feed-forward network is ``inner`` wide."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        # bitsandbytes' CPU kernel reads other blocks where rows are no multiple of one (64).
        intermediate_size=inner,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=key_heads,
        max_position_embeddings=64,
        initializer_range=0.15,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def write(name: str, said: dict[str, Any], quantize: Quantize) -> None:
    """Write a checkpoint all of whose layers, but for the last, are quantized."""
    model, folder = tiny_model(), FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tensors, expected = dict(model.state_dict()), {}
    for layer, module in model.named_modules():
        if isinstance(module, nn.Linear) and layer != "lm_head":
            parts, weight = quantize(module)
            del tensors[f"{layer}.weight"]
            tensors |= {f"{layer}.{part}": tensor for part, tensor in parts.items()}
            expected[f"{layer}.weight"] = weight
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "model.safetensors")
    save_file({n: t.contiguous() for n, t in expected.items()}, folder / "expected.safetensors")
    config = model.config.to_dict()
    config |= {"architectures": ["LlamaForCausalLM"], "quantization_config": said}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def gptq(name: str, bits: int, by_activation: bool, first_form: bool) -> None:
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module

    def quantize(linear: nn.Linear) -> tuple[Tensors, Tensor]:
        outputs, inputs = linear.weight.shape
        group_of = torch.arange(inputs) // GROUP
        if by_activation:
            group_of = group_of[torch.randperm(inputs)]
        groups = [linear.weight[:, group_of == one] for one in range(inputs // GROUP)]
        low = torch.stack([group.amin(1).clamp(max=0) for group in groups], 1)
        high = torch.stack([group.amax(1).clamp(min=0) for group in groups], 1)
        largest = 2**bits - 1
        scales = ((high - low) / largest).half().float()
        zeros = torch.round(-low / scales).clamp(1, largest)
        packed = TorchLinear(
            bits=bits,
            group_size=GROUP,
            sym=False,
            desc_act=by_activation,
            in_features=inputs,
            out_features=outputs,
            bias=False,
            pack_dtype=torch.int32,
        ).eval()
        packed.pack(linear.half(), scales, zeros, group_of.int())
        packed._init_wf_unsqueeze_buffers()
        weight = super(TorchLinear, packed).dequantize_weight().T.clone()
        if first_form:
            packed.qzero_format(format=2)
            convert_gptq_v2_to_v1_format_module(packed, packed)
        return dict(packed.state_dict()), weight

    form = "gptq" if first_form else "gptq_v2"
    said = {"quant_method": "gptq", "bits": bits, "group_size": GROUP, "sym": False}
    write(name, {**said, "desc_act": by_activation, "checkpoint_format": form}, quantize)


def awq() -> None:
    from awq.utils.packing_utils import dequantize_gemm

    def quantize(linear: nn.Linear) -> tuple[Tensors, Tensor]:
        outputs, inputs = linear.weight.shape
        low, high = -(2**31), 2**31 - 1
        words = torch.randint(low, high, (inputs, outputs // 8), dtype=torch.int32)
        zeros = torch.randint(low, high, (inputs // GROUP, outputs // 8), dtype=torch.int32)
        scales = (0.01 + 0.02 * torch.rand(inputs // GROUP, outputs)).half()
        weight = dequantize_gemm(words, zeros, scales, 4, GROUP).T
        return {"qweight": words, "qzeros": zeros, "scales": scales}, weight

    said = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True}
    write("awq", {**said, "version": "gemm"}, quantize)


def compressed_tensors(
    name: str, form: str, activations: dict[str, Any] | None, **weights: Any
) -> None:
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    args = QuantizationArgs(**weights)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    compressor = BaseCompressor.get_value_from_registry(form)
    largest = 448.0 if args.type == "float" else 2 ** (args.num_bits - 1) - 1

    def quantize(linear: nn.Linear) -> tuple[Tensors, Tensor]:
        weight = linear.weight.to(torch.bfloat16)
        outputs, inputs = weight.shape
        rows, columns = args.block_structure or (1, args.group_size or inputs)
        blocks = weight.float().reshape(outputs // rows, rows, inputs // columns, columns)
        scales = (blocks.abs().amax((1, 3)) / largest).to(torch.bfloat16)
        zeros = torch.zeros_like(scales, dtype=torch.int8)
        if not args.symmetric:
            zeros = torch.randint(-3, 4, scales.shape).to(torch.int8)
        state = {"weight": weight, "weight_scale": scales, "weight_zero_point": zeros}
        packed = compressor.compress(state, scheme)
        return dict(packed), compressor.decompress(dict(packed), scheme)["weight"]

    group = {
        "targets": ["Linear"],
        "weights": args.model_dump(mode="json"),
        "input_activations": activations,
    }
    said = {"quant_method": "compressed-tensors", "format": form, "ignore": ["lm_head"]}
    write(
        name,
        {**said, "config_groups": {"group_0": group}, "quantization_status": "compressed"},
        quantize,
    )


def fp8() -> None:
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    block = 32

    def quantize(linear: nn.Linear) -> tuple[Tensors, Tensor]:
        outputs, inputs = linear.weight.shape
        blocks = linear.weight.reshape(outputs // block, block, inputs // block, block)
        scales = blocks.abs().amax((1, 3)) / 448
        codes = (blocks / scales[:, None, :, None]).reshape(outputs, inputs)
        weight = codes.to(torch.float8_e4m3fn)
        made = Fp8Dequantize(None)._dequantize_one(weight, scales, torch.float32)
        return {"weight": weight, "weight_scale_inv": scales}, made

    said = {"quant_method": "fp8", "activation_scheme": "dynamic"}
    write("fp8", {**said, "weight_block_size": [block, block]}, quantize)


def bitsandbytes_4bit(name: str, table: str, twice: bool) -> None:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    def quantize(linear: nn.Linear) -> tuple[Tensors, Tensor]:
        codes, state = quantize_4bit(linear.weight, quant_type=table, compress_statistics=twice)
        parts = {f"weight.{part}": t for part, t in state.as_dict(packed=True).items()}
        return {"weight": codes, **parts}, dequantize_4bit(codes, state)

    said = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": table}
    write(name, {**said, "bnb_4bit_use_double_quant": twice}, quantize)


def bitsandbytes_8bit() -> None:
    from bitsandbytes.functional import int8_vectorwise_dequant, int8_vectorwise_quant

    def quantize(linear: nn.Linear) -> tuple[Tensors, Tensor]:
        codes, largest, _ = int8_vectorwise_quant(linear.weight.half())
        parts = {
            "weight": codes,
            "SCB": largest,
            "weight_format": torch.tensor(0, dtype=torch.uint8),
        }
        return parts, int8_vectorwise_dequant(codes, largest)

    write("bitsandbytes-int8", {"quant_method": "bitsandbytes", "load_in_8bit": True}, quantize)


def hqq(name: str, bits: int, axis: int) -> None:
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    said = BaseQuantizeConfig(nbits=bits, group_size=GROUP, axis=axis)

    def quantize(linear: nn.Linear) -> tuple[Tensors, Tensor]:
        # A copy: the layer that is given is emptied.
        made = HQQLinear(deepcopy(linear), said, compute_dtype=torch.float32, device="cpu")
        return dict(made.state_dict()), made.dequantize()

    write(
        name, {"quant_method": "hqq", "quant_config": said, "skip_modules": ["lm_head"]}, quantize
    )


def main() -> None:
    gptq("gptq-2bit", bits=2, by_activation=False, first_form=True)
    gptq("gptq-3bit", bits=3, by_activation=False, first_form=False)
    gptq("gptq-4bit", bits=4, by_activation=False, first_form=True)
    gptq("gptq-4bit-act-order", bits=4, by_activation=True, first_form=True)
    gptq("gptq-8bit-act-order", bits=8, by_activation=True, first_form=False)
    awq()
    integers, floats = {"num_bits": 8, "type": "int"}, {"num_bits": 8, "type": "float"}
    each_token = {"strategy": "token", "dynamic": True}
    group = {"strategy": "group", "group_size": GROUP}
    packed = "pack-quantized"
    compressed_tensors("w4a16", packed, None, num_bits=4, **group)
    compressed_tensors("w4a16-asymmetric", packed, None, num_bits=4, symmetric=False, **group)
    compressed_tensors("w3a16", packed, None, num_bits=3, strategy="channel")
    compressed_tensors(
        "w8a8", "int-quantized", {**integers, **each_token}, num_bits=8, strategy="channel"
    )
    compressed_tensors(
        "w8a8-asymmetric",
        "int-quantized",
        {**integers, "strategy": "tensor"},
        num_bits=8,
        strategy="channel",
        symmetric=False,
    )
    compressed_tensors(
        "w8a8-fp8", "float-quantized", {**floats, **each_token}, **floats, strategy="channel"
    )
    compressed_tensors(
        "w8a8-fp8-blocks",
        "float-quantized",
        {**floats, **each_token},
        **floats,
        strategy="block",
        block_structure=[16, 32],
    )
    fp8()
    bitsandbytes_4bit("bitsandbytes-nf4", "nf4", twice=False)
    bitsandbytes_4bit("bitsandbytes-nf4-twice", "nf4", twice=True)
    bitsandbytes_4bit("bitsandbytes-fp4", "fp4", twice=False)
    bitsandbytes_8bit()
    hqq("hqq-4bit", bits=4, axis=1)
    hqq("hqq-3bit-columns", bits=3, axis=0)
    hqq("hqq-2bit", bits=2, axis=1)


if __name__ == "__main__":
    main()
