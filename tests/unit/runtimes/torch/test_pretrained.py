"""Tensors that a model has no place for: of another task, or lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    LlamaConfig,
    LlamaForCausalLM,
)

from serving.checkpoint import read_headers
from serving.errors import SourceError
from serving.runtimes.torch.expanding import as_floats
from serving.runtimes.torch.pretrained import load_pretrained
from serving.seams import Checkpoint
from tests.unit.quantized_checkpoints.layer_tensors import packed_rows

BERT = BertConfig(
    vocab_size=16,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=8,
)
LLAMA = LlamaConfig(
    vocab_size=16,
    hidden_size=8,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    bos_token_id=0,
    eos_token_id=0,
)
GPT2 = GPT2Config(
    vocab_size=16, n_positions=8, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
)


def test_a_part_of_a_layer_that_has_no_place_is_named(tmp_path: Path) -> None:
    BertForSequenceClassification(BERT).save_pretrained(tmp_path)
    # The head is of another task, and what older versions kept is of none.
    assert load_pretrained(Checkpoint(tmp_path), "AutoModel", torch.float32)
    tensors = load_file(tmp_path / "model.safetensors")
    layer = "bert.encoder.layer.0.output.dense"
    for name in (f"{layer}.input_scale", f"{layer}.weight.absmax"):
        save_file({**tensors, name: torch.ones(1)}, tmp_path / "model.safetensors")
        with pytest.raises(SourceError, match=r"has no place for .*layer\.0\.output\.dense\."):
            load_pretrained(Checkpoint(tmp_path), "AutoModel", torch.float32)
    buffer = {"bert.embeddings.position_ids": torch.arange(8).unsqueeze(0)}
    save_file({**tensors, **buffer}, tmp_path / "model.safetensors")
    assert load_pretrained(Checkpoint(tmp_path), "AutoModel", torch.float32)


def test_a_checkpoint_without_a_head_has_names_of_its_own(tmp_path: Path) -> None:
    GPT2Model(GPT2).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["h.0.mlp.c_fc.input_scale"] = torch.ones(1)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(SourceError, match=r"has no place for h\.0\.mlp\.c_fc\.input_scale"):
        load_pretrained(Checkpoint(tmp_path), "AutoModelForCausalLM", torch.float32)


def test_a_bias_of_zeros_that_has_no_place_is_passed_over(tmp_path: Path) -> None:
    """As AutoGPTQ writes them for Llama's layers, which have none."""
    LlamaForCausalLM(LLAMA).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    bias = "model.layers.0.self_attn.k_proj.bias"
    save_file({**tensors, bias: torch.zeros(8)}, tmp_path / "model.safetensors")
    assert load_pretrained(Checkpoint(tmp_path), "AutoModelForCausalLM", torch.float32)
    save_file({**tensors, bias: torch.eye(8)[3]}, tmp_path / "model.safetensors")
    with pytest.raises(SourceError, match=r"has no place for .*k_proj\.bias"):
        load_pretrained(Checkpoint(tmp_path), "AutoModelForCausalLM", torch.float32)


def test_layers_of_gpt_2_are_turned_back(tmp_path: Path) -> None:
    """Libraries quantize them as (outputs, inputs); one is square, another is left in floats."""
    GPT2LMHeadModel(GPT2).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    expected = {}
    for layer in ("attn.c_attn", "attn.c_proj", "mlp.c_fc"):
        name = f"transformer.h.0.{layer}"
        inputs, outputs = tensors.pop(f"{name}.weight").shape
        codes = torch.arange(inputs * outputs).view(outputs, inputs) * 7 % 16
        tensors |= {
            f"{name}.qweight": packed_rows(codes, 4).T.contiguous(),
            f"{name}.qzeros": packed_rows(torch.full((1, outputs), 7), 4),
            f"{name}.scales": torch.full((1, outputs), 0.5),
        }
        expected[f"{name}.weight"] = (codes.T - 8) * 0.5
    expected["transformer.h.0.mlp.c_proj.weight"] = tensors["transformer.h.0.mlp.c_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    said = json.loads((tmp_path / "config.json").read_text())
    said["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": -1}
    (tmp_path / "config.json").write_text(json.dumps(said))
    told = {shape.name: shape.shape for shape in read_headers(Checkpoint(tmp_path)).shapes}
    assert {name: told[name] for name in expected} == {n: w.shape for n, w in expected.items()}
    with as_floats(Checkpoint(tmp_path)) as floats:
        loaded = load_pretrained(floats, "AutoModelForCausalLM", torch.float32)
    parameters = dict(loaded.named_parameters())
    for name, weight in expected.items():
        assert torch.equal(parameters[name], weight), name
