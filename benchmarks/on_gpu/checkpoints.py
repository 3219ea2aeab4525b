"""Checkpoints of random weights, of a size that suits the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from serving.seams import DeviceName

ENCODERS: dict[str, dict[str, Any]] = {
    # BERT base.
    "cuda": {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3_072},
    "cpu": {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128},
}
GENERATORS: dict[str, dict[str, Any]] = {
    # As Llama 3.2 1B, with a smaller vocabulary.
    "cuda": {"hidden_size": 2_048, "num_hidden_layers": 16, "intermediate_size": 8_192},
    "cpu": {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128},
}
HEADS = {"cuda": (12, 32, 8), "cpu": (4, 4, 2)}
"""Of the encoder; of the generator's queries, and of its keys and values."""

VOCABULARY = {"cuda": 32_000, "cpu": 320}
SPREAD = {"cuda": 0.04, "cpu": 0.2}
"""Wider than usual, or every layer would be close to the identity."""


def random_encoder(folder: Path, device: DeviceName) -> Path:
    """Write a BERT."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY[device],
        num_attention_heads=HEADS[device][0],
        initializer_range=SPREAD[device],
        **ENCODERS[device],
    )
    BertModel(config).save_pretrained(folder)
    return folder


def random_generator(folder: Path, device: DeviceName) -> Path:
    """Write a Llama."""
    torch.manual_seed(0)
    _, heads, kv_heads = HEADS[device]
    config = LlamaConfig(
        vocab_size=VOCABULARY[device],
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=2_048,
        initializer_range=SPREAD[device],
        **GENERATORS[device],
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
