"""Small random causal language models, and what transformers itself makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForCausalLM

from serving.runtimes import VARIANTS, get_variant
from serving.runtimes.torch.decoder.causal_lm import Numerics, fuse, rotations
from serving.runtimes.torch.decoder.loading import load_decoder
from serving.runtimes.torch.decoder.torch_decoder import TorchDecoder
from serving.seams import Checkpoint, Decoder, GeneratorEngine, GeneratorRequest

VOCABULARY = 320

TINY = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 192,
    "max_position_embeddings": 256,
    # Far above the usual 0.02, or every layer would be close to the identity.
    "initializer_range": 0.15,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}

ROPE = {"rope_theta": 10_000.0}

# Original lengths are short, so that the sequences of the tests reach beyond them.
LLAMA3_ROPE = {
    **ROPE,
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN_ROPE = {
    **ROPE,
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR_ROPE = {**ROPE, "rope_type": "linear", "factor": 3.0}
DYNAMIC_ROPE = {**ROPE, "rope_type": "dynamic", "factor": 2.0}
LONG_ROPE = {
    **ROPE,
    "rope_type": "longrope",
    "factor": 2.0,
    "original_max_position_embeddings": 64,
    "short_factor": [1.0] * 16,
    "long_factor": [2.0] * 16,
}

TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
LLAMA = {"model_type": "llama", **TIED}

MODELS: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "llama-untied": {**LLAMA, **UNTIED},
    "llama-biases": {**LLAMA, "attention_bias": True, "mlp_bias": True},
    "llama-every-head-its-key": {**LLAMA, "num_key_value_heads": 4},
    "llama-one-key": {**LLAMA, "num_key_value_heads": 1},
    "llama-wide-heads": {**LLAMA, "head_dim": 48},
    "llama3-rope": {**LLAMA, "rope_parameters": LLAMA3_ROPE},
    "yarn-rope": {**LLAMA, "rope_parameters": YARN_ROPE},
    "linear-rope": {**LLAMA, "rope_parameters": LINEAR_ROPE},
    "mistral": {"model_type": "mistral", "sliding_window": None, **UNTIED},
    "qwen2": {"model_type": "qwen2", **UNTIED},
    "qwen2-tied": {"model_type": "qwen2", **TIED},
    "qwen3": {"model_type": "qwen3", "head_dim": 64, **TIED},
    "qwen3-biases": {"model_type": "qwen3", "head_dim": 32, "attention_bias": True, **UNTIED},
}
"""Every architecture that is known, in the forms in which it comes."""


def random_model(seed: int = 0, **config: Any) -> Any:
    """A float32 transformers model; ``config`` overrides ``TINY``."""
    torch.manual_seed(seed)
    changed = {**TINY, **config}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**changed)).eval()
    for name, parameter in model.named_parameters():
        # Norms of one and biases of zero would hide that they are mixed up or left out.
        if parameter.dim() == 1:
            spread = torch.rand(parameter.shape) - 0.5
            parameter.data = spread if name.endswith("bias") else 1 + spread
    return model


def save_generator(folder: Path, seed: int = 0, **config: Any) -> Checkpoint:
    """Write a random model; ``config`` overrides ``TINY``."""
    random_model(seed, **{"model_type": "llama", **config}).save_pretrained(folder)
    return Checkpoint(folder)


def numerics_of(variant: str, **options: Any) -> Numerics:
    """How ``variant`` makes a generator on the CPU."""
    module = import_module(VARIANTS[variant].partition(":")[0])
    numerics: Numerics = module.generator_numerics(get_variant(variant).options(**options))
    return numerics


def generator_request(
    variant: str,
    checkpoint: Checkpoint,
    num_slots: int = 4,
    slot_tokens: int = 128,
    max_waiting: int = 64,
    **options: Any,
) -> GeneratorRequest:
    return GeneratorRequest(
        checkpoint=checkpoint,
        device="cpu",
        threads=1,
        options=get_variant(variant).options(**options),
        max_running=num_slots,
        max_waiting=max_waiting,
        max_tokens=slot_tokens,
    )


def decoder_of(
    model: Any, numerics: Numerics | None = None, num_slots: int = 4, slot_tokens: int = 128
) -> TorchDecoder:
    """A decoder of a model, which it takes apart; in float32 unless ``numerics`` say otherwise."""
    numerics = numerics_of("fp32") if numerics is None else numerics
    fused, turns = fuse(model, numerics), rotations(model, slot_tokens)
    return TorchDecoder(fused, turns, numerics.dtype, numerics.cache_dtype, num_slots, threads=1)


def load_tiny_decoder(variant: str, checkpoint: Checkpoint, **changes: Any) -> Decoder:
    """The decoder of ``variant`` without the engine around it."""
    return load_decoder(generator_request(variant, checkpoint, **changes), numerics_of(variant))


def load_tiny_generator(variant: str, checkpoint: Checkpoint, **changes: Any) -> GeneratorEngine:
    """The engine of ``variant``, as a replica loads it."""
    return get_variant(variant).load_generator(generator_request(variant, checkpoint, **changes))


def random_tokens(length: int, seed: int) -> list[int]:
    tokens: list[int] = np.random.default_rng(seed).integers(0, VOCABULARY, length).tolist()
    return tokens


def logits_of(model: Any, tokens: Sequence[int]) -> NDArray[np.float32]:
    """float32 (tokens, vocabulary), after each token, by the model's own forward pass."""
    with torch.no_grad():
        logits = model(torch.tensor([list(tokens)])).logits[0]
    array: NDArray[np.float32] = logits.float().numpy()
    return array
