"""Sizes of well-known checkpoints from headers as the hub's files have them.

What transformers saves today has other tensors than many files: masks are gone, experts are one
tensor, nothing is packed. The counts are those that the models are published with.
"""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import pytest

from serving.app.sizing import Impossible, Sizing, sizings
from serving.checkpoint import SourceHeaders, look_at
from serving.recipes import RECIPES
from serving.runtimes.torch.sizes import estimate
from serving.seams import DeviceName, SizeRequest, WeightShape

Tensors = dict[str, tuple[str, tuple[int, ...]]]
"""Types and shapes by names."""

BYTES = {"F32": 4, "F16": 2, "BF16": 2, "U8": 1, "BOOL": 1}

GB = 1e9


def write(folder: Path, config: dict[str, Any], tensors: Tensors) -> SourceHeaders:
    """Headers of a file whose weights are a hole in it: they take no room on disk."""
    header, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + BYTES[dtype] * prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    (folder / "config.json").write_text(json.dumps(config))
    return look_at(str(folder))


def linear(name: str, outputs: int, inputs: int, dtype: str = "F16") -> Tensors:
    return {f"{name}.weight": (dtype, (outputs, inputs)), f"{name}.bias": (dtype, (outputs,))}


def norm(name: str, width: int, dtype: str = "F16") -> Tensors:
    return {f"{name}.{part}": (dtype, (width,)) for part in ("weight", "bias")}


def gpt2() -> tuple[dict[str, Any], Tensors]:
    """``openai-community/gpt2``, whose layers are stored the other way round."""
    config: dict[str, Any] = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
    config |= {"n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024}
    tensors: Tensors = {"wte.weight": ("F32", (50_257, 768)), "wpe.weight": ("F32", (1024, 768))}
    for layer in range(12):
        at = f"h.{layer}"
        tensors |= norm(f"{at}.ln_1", 768, "F32") | norm(f"{at}.ln_2", 768, "F32")
        tensors[f"{at}.attn.bias"] = ("F32", (1, 1, 1024, 1024))
        sizes = {"attn.c_attn": (768, 2304), "attn.c_proj": (768, 768)}
        sizes |= {"mlp.c_fc": (768, 3072), "mlp.c_proj": (3072, 768)}
        for name, (inputs, outputs) in sizes.items():
            tensors[f"{at}.{name}.weight"] = ("F32", (inputs, outputs))
            tensors[f"{at}.{name}.bias"] = ("F32", (outputs,))
    return config, tensors | norm("ln_f", 768, "F32")


def pythia() -> tuple[dict[str, Any], Tensors]:
    """``EleutherAI/pythia-70m``."""
    config: dict[str, Any] = {"model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"]}
    config |= {"num_hidden_layers": 6, "num_attention_heads": 8, "hidden_size": 512}
    config["hidden_act"] = "gelu"
    tensors: Tensors = {"gpt_neox.embed_in.weight": ("F16", (50_304, 512))}
    tensors["embed_out.weight"] = ("F16", (50_304, 512))
    for layer in range(6):
        at = f"gpt_neox.layers.{layer}"
        tensors |= norm(f"{at}.input_layernorm", 512)
        tensors |= norm(f"{at}.post_attention_layernorm", 512)
        tensors[f"{at}.attention.bias"] = ("BOOL", (1, 1, 2048, 2048))
        tensors[f"{at}.attention.masked_bias"] = ("F16", ())
        tensors[f"{at}.attention.rotary_emb.inv_freq"] = ("F16", (8,))
        tensors |= linear(f"{at}.attention.query_key_value", 1536, 512)
        tensors |= linear(f"{at}.attention.dense", 512, 512)
        tensors |= linear(f"{at}.mlp.dense_h_to_4h", 2048, 512)
        tensors |= linear(f"{at}.mlp.dense_4h_to_h", 512, 2048)
    return config, tensors | norm("gpt_neox.final_layer_norm", 512)


def llama_of_bitsandbytes() -> tuple[dict[str, Any], Tensors]:
    """``unsloth/Llama-3.2-1B-bnb-4bit``: NF4, its magnitudes quantized, too."""
    config: dict[str, Any] = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 2048,
    }
    config |= {"num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8}
    config |= {"head_dim": 64, "intermediate_size": 8192, "tie_word_embeddings": True}
    said = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    config["quantization_config"] = said | {"bnb_4bit_use_double_quant": True}
    tensors: Tensors = {"model.embed_tokens.weight": ("BF16", (128_256, 2048))}
    tensors["model.norm.weight"] = ("BF16", (2048,))
    of_attention = {"q_proj": 2048, "k_proj": 512, "v_proj": 512, "o_proj": 2048}
    sizes = {f"self_attn.{name}": size * 2048 for name, size in of_attention.items()}
    sizes |= {f"mlp.{name}": 8192 * 2048 for name in ("gate_proj", "up_proj", "down_proj")}
    for layer in range(16):
        at = f"model.layers.{layer}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{at}.{name}.weight"] = ("BF16", (2048,))
        for name, numbers in sizes.items():
            weight = f"{at}.{name}.weight"
            tensors[weight] = ("U8", (numbers // 2, 1))
            tensors[f"{weight}.absmax"] = ("U8", (numbers // 64,))
            tensors[f"{weight}.nested_absmax"] = ("F32", (numbers // 64 // 256,))
            tensors[f"{weight}.nested_quant_map"] = ("F32", (256,))
            tensors[f"{weight}.quant_map"] = ("F32", (16,))
            tensors[f"{weight}.quant_state.bitsandbytes__nf4"] = ("U8", (91,))
    return config, tensors


QWEN_MOE: dict[str, Any] = {"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"]}
QWEN_MOE |= {"num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4}
QWEN_MOE |= {"head_dim": 128, "hidden_size": 2048, "num_experts": 128}


def qwen_moe() -> list[WeightShape]:
    """``Qwen/Qwen3-30B-A3B``."""
    sizes: dict[str, tuple[int, ...]] = {"model.norm.weight": (2048,)}
    sizes |= {"model.embed_tokens.weight": (151_936, 2048), "lm_head.weight": (151_936, 2048)}
    for layer in range(48):
        at = f"model.layers.{layer}"
        sizes[f"{at}.mlp.gate.weight"] = (128, 2048)
        for name in ("input_layernorm", "post_attention_layernorm"):
            sizes[f"{at}.{name}.weight"] = (2048,)
        for name in ("q_norm", "k_norm"):
            sizes[f"{at}.self_attn.{name}.weight"] = (128,)
        sizes[f"{at}.self_attn.q_proj.weight"] = (4096, 2048)
        sizes[f"{at}.self_attn.o_proj.weight"] = (2048, 4096)
        for name in ("k_proj", "v_proj"):
            sizes[f"{at}.self_attn.{name}.weight"] = (512, 2048)
        for expert in range(128):
            for name in ("gate_proj", "up_proj"):
                sizes[f"{at}.mlp.experts.{expert}.{name}.weight"] = (768, 2048)
            sizes[f"{at}.mlp.experts.{expert}.down_proj.weight"] = (2048, 768)
    return [
        WeightShape(name, shape, name == "model.embed_tokens.weight", "BF16")
        for name, shape in sizes.items()
    ]


def numbers_of(headers: SourceHeaders) -> int:
    return sum(prod(shape.shape) for shape in headers.shapes)


def weights_on_torch(headers: SourceHeaders, device: DeviceName = "cpu") -> dict[str, int]:
    return {
        cell.recipe: cell.estimate.weights_bytes
        for cell in sizings(headers, 1, 512)
        if isinstance(cell, Sizing) and (cell.runtime, cell.device) == ("torch", device)
    }


@pytest.mark.parametrize(
    ("published", "numbers", "tables"),
    [
        (gpt2, 124_439_808, {"wte.weight", "wpe.weight"}),
        (pythia, 70_426_624, {"gpt_neox.embed_in.weight"}),
        (llama_of_bitsandbytes, 1_235_814_400, {"model.embed_tokens.weight"}),
    ],
    ids=["gpt2", "pythia", "llama"],
)
def test_a_model_has_as_many_numbers_as_it_is_published_with(
    tmp_path: Path, published: Any, numbers: int, tables: set[str]
) -> None:
    headers = write(tmp_path, *published())
    assert numbers_of(headers) == numbers
    assert {shape.name for shape in headers.shapes if shape.is_embedding} == tables
    weights = weights_on_torch(headers)
    assert weights["fp32"] == 4 * numbers
    # Scales, vectors in float32 and a little padding come on top.
    assert weights["int8-dynamic"] == pytest.approx(numbers, rel=0.02)


@pytest.mark.parametrize(
    ("published", "table", "rest"),
    [
        (gpt2, 50_257 * 768 + 1024 * 768, 84_954_624),
        (pythia, 50_304 * 512, 25_755_648 + 18_874_368),
        (llama_of_bitsandbytes, 128_256 * 2048, 973_078_528),
    ],
    ids=["gpt2", "pythia", "llama"],
)
def test_tables_are_counted_in_8_bits_and_layers_in_4(
    tmp_path: Path, published: Any, table: int, rest: int
) -> None:
    weights = weights_on_torch(write(tmp_path, *published()))
    for recipe in ("int4", "nf4"):
        # 4 bits, and of each group of 128 to 32 numbers 4 bytes beside them.
        assert table + rest / 2 < weights[recipe] < 1.03 * table + 0.65 * rest, recipe


def test_layers_of_which_a_header_only_counts_numbers_are_no_single_rows(tmp_path: Path) -> None:
    headers = write(tmp_path, *llama_of_bitsandbytes())
    options = RECIPES["int4"].options(method="gptq")
    asked = SizeRequest("int4", options, "generator", "cpu", headers.shapes)
    # Products of 8,192 inputs in 16 layers, and of 2,048 in six others of each, float32.
    products = 16 * 4 * (8192**2 + 6 * 2048**2)
    plain = estimate(
        SizeRequest("int4", RECIPES["int4"].options(), *("generator", "cpu"), headers.shapes)
    )
    assert estimate(asked).preparing_bytes - plain.preparing_bytes == products
    assert weights_on_torch(headers)["fp8"] < 1.3 * GB


@pytest.mark.parametrize("recipe", ["int8-dynamic", "fp8", "int4"])
def test_experts_are_counted_as_they_lie_on_a_gpu(recipe: str) -> None:
    shapes = qwen_moe()
    assert sum(prod(shape.shape) for shape in shapes) == 30_532_122_624
    experts = 48 * 128 * 3 * 768 * 2048
    request = SizeRequest(recipe, RECIPES[recipe].options(), "generator", "cuda", shapes)
    rest = 30_532_122_624 - experts
    assert 2 * experts + rest / 2 < estimate(request).weights_bytes < 2 * experts + 1.1 * rest


def test_a_mixture_is_not_called_what_its_experts_are_not() -> None:
    headers = SourceHeaders("safetensors", QWEN_MOE, qwen_moe())
    of_gpu = [
        cell
        for cell in sizings(headers, 1, 512)
        if (cell.runtime, cell.device) == ("torch", "cuda")
    ]
    refused = {cell.recipe: cell.reason for cell in of_gpu if isinstance(cell, Impossible)}
    assert {"int8-dynamic", "int4"} <= refused.keys()
    assert "mixture of experts" in refused["int4"]
    served = {cell.recipe: cell for cell in of_gpu if isinstance(cell, Sizing)}
    assert served.keys() == {"fp32", "f16", "bf16"}
    assert served["bf16"].estimate.weights_bytes == 2 * 30_532_122_624
