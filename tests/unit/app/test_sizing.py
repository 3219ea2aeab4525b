"""Sizes from headers alone, against sizes that well-known checkpoints are published with."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from serving.app.sizing import Impossible, Sizing, engine_kind, sizings
from serving.checkpoint import SourceHeaders, look_at
from tests.unit.runtimes.tiny_generators import save_gguf

GIB = 2**30
GB = 1e9

GEMMA_2B: dict[str, Any] = {"model_type": "gemma"}
LLAMA_7B: dict[str, Any] = {
    "model_type": "llama",
    "max_position_embeddings": 4096,
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
LLAMA_13B = LLAMA_7B | {
    "hidden_size": 5120,
    "intermediate_size": 13_824,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "num_key_value_heads": 40,
}
CODESTRAL_22B = {
    "model_type": "mistral",
    "vocab_size": 32_768,
    "hidden_size": 6144,
    "intermediate_size": 16_384,
    "num_hidden_layers": 56,
    "num_attention_heads": 48,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "sliding_window": None,
    "tie_word_embeddings": False,
}
GEMMA_2B |= {
    "num_hidden_layers": 18,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "hidden_size": 2048,
    "intermediate_size": 16_384,
    "vocab_size": 256_000,
}


def write_headers(folder: Path, config: dict[str, Any]) -> str:
    """A checkpoint in float16 whose weights are a hole in the file: they take no room on disk."""
    made = AutoConfig.for_model(**config)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(made)
    header, end = {}, 0
    for name, parameter in model.named_parameters():
        start, end = end, end + 2 * prod(parameter.shape)
        header[name] = {
            "dtype": "F16",
            "shape": list(parameter.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    said = made.to_dict() | {"architectures": [type(model).__name__]}
    (folder / "config.json").write_text(json.dumps(said))
    return str(folder)


def sizes_of(source: str, streams: int = 1, context: int = 4096) -> dict[tuple[str, str], Sizing]:
    cells = sizings(look_at(source), streams, context)
    return {
        (cell.recipe, cell.runtime): cell
        for cell in cells
        if isinstance(cell, Sizing) and cell.device == "cpu"
    }


# Files in float16 and GGUF as they are published, in GB, and GiB of float16 keys and values of
# 4,096 tokens: twice layers × key heads × their width.
PUBLISHED = [
    (GEMMA_2B, {"f16": 5.01}, 18 * 256),
    (
        LLAMA_7B,
        {"f16": 13.48, "q8_0": 7.16, "q6_k": 5.53, "q5_k_m": 4.78, "q4_k_m": 4.08, "q4_0": 3.83}
        | {"q3_k_m": 3.30},
        32 * 4096,
    ),
    (
        LLAMA_13B,
        {"f16": 26.03, "q8_0": 13.83, "q6_k": 10.68, "q5_k_m": 9.23, "q4_k_m": 7.87, "q4_0": 7.37}
        | {"q3_k_m": 6.34},
        40 * 5120,
    ),
    (
        CODESTRAL_22B,
        {"f16": 44.49, "q8_0": 23.64, "q6_k": 18.25, "q5_k_m": 15.72, "q4_k_m": 13.34}
        | {"q3_k_m": 10.76, "q2_k": 8.27},
        56 * 1024,
    ),
]


@pytest.mark.parametrize(
    ("config", "published", "numbers"), PUBLISHED, ids=["2B", "7B", "13B", "22B"]
)
def test_well_known_sizes_are_met(
    tmp_path: Path, config: dict[str, Any], published: dict[str, float], numbers: int
) -> None:
    sizes = sizes_of(write_headers(tmp_path, config), streams=2)
    for recipe, gigabytes in published.items():
        weights = sizes[recipe, "llama.cpp"].estimate.weights_bytes
        assert weights == pytest.approx(gigabytes * GB, rel=0.01), recipe
    fp32, bf16 = sizes["fp32", "torch"], sizes["bf16", "torch"]
    assert fp32.estimate.weights_bytes == pytest.approx(2 * published["f16"] * GB, rel=0.01)
    assert bf16.kv_cache_bytes == 2 * 4096 * 2 * 2 * numbers
    assert fp32.kv_cache_bytes == 2 * bf16.kv_cache_bytes
    held = bf16.estimate.weights_bytes + bf16.kv_cache_bytes
    assert bf16.replica_bytes > held


def test_what_is_refused_of_this_checkpoint_is_named(tmp_path: Path) -> None:
    source = write_headers(tmp_path, GEMMA_2B | {"model_type": "gemma2"})
    refused = [cell for cell in sizings(look_at(source), 1, 64) if isinstance(cell, Impossible)]
    assert {cell.runtime for cell in refused} == {"openvino"}
    assert all("gemma2" in cell.reason for cell in refused)


def test_a_gguf_file_is_sized_in_every_runtime_that_reads_it(tmp_path: Path) -> None:
    checkpoint = save_gguf(tmp_path)
    assert checkpoint.gguf_file is not None
    sizes = sizes_of(str(tmp_path / checkpoint.gguf_file), context=64)
    weights = {runtime: cell.estimate.weights_bytes for (_, runtime), cell in sizes.items()}
    stored = sizes["stored", "llama.cpp"].estimate.weights_bytes
    assert sizes["fp32", "openvino"].estimate.weights_bytes == stored  # float32, too
    assert all(weights.values())


@pytest.mark.parametrize(
    ("architectures", "kind"),
    [
        (["LlamaForCausalLM"], "generator"),
        (["GPT2LMHeadModel"], "generator"),
        (["BertModel"], "encoder"),
        (["BertForSequenceClassification"], "encoder"),
        (None, "encoder"),
    ],
)
def test_the_named_architecture_tells_the_kind(architectures: list[str] | None, kind: str) -> None:
    headers = SourceHeaders("safetensors", {"architectures": architectures}, [])
    assert engine_kind(headers) == kind
