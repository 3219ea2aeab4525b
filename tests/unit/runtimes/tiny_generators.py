"""Small random causal language models, and what transformers itself makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import MODEL_ARCH, GGUFWriter, get_tensor_name_map
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForCausalLM

from serving.cores import UnsharedCores
from serving.recipes import RECIPES
from serving.runtimes.torch.conversions import CONVERSIONS
from serving.runtimes.torch.decoder.causal_lm import Numerics
from serving.runtimes.torch.decoder.fusing import fuse
from serving.runtimes.torch.decoder.torch_decoder import TorchDecoder
from serving.seams import (
    Arrays,
    Checkpoint,
    DeviceName,
    OpenGeneratorRequest,
    PrepareRequest,
    TokenRequest,
)

VOCABULARY = 320

TINY: dict[str, Any] = {
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
LLAMA3_ROPE: dict[str, Any] = {
    **ROPE,
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN_ROPE: dict[str, Any] = {
    **ROPE,
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR_ROPE = {**ROPE, "rope_type": "linear", "factor": 3.0}
DYNAMIC_ROPE = {**ROPE, "rope_type": "dynamic", "factor": 2.0}
LONG_ROPE: dict[str, Any] = {
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
    "gemma": {"model_type": "gemma", "head_dim": 48},
    "gemma2": {
        "model_type": "gemma2",
        "head_dim": 32,
        "query_pre_attn_scalar": 50,
        "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 4.0,
        "sliding_window": 200,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 32,
        "query_pre_attn_scalar": 50,
        "sliding_window": 200,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {**ROPE, "rope_type": "linear", "factor": 3.0},
        },
    },
    "phi3": {"model_type": "phi3", "sliding_window": None, **UNTIED},
    "phi3-partial": {
        "model_type": "phi3",
        "sliding_window": 150,
        "rope_parameters": {**ROPE, "rope_type": "default", "partial_rotary_factor": 0.75},
        **UNTIED,
    },
    "gpt2": {"model_type": "gpt2"},
    "gpt2-unscaled": {"model_type": "gpt2", "scale_attn_weights": False},
    "gpt-neox": {"model_type": "gpt_neox", **UNTIED},
    "gpt-neox-one-after-the-other": {
        "model_type": "gpt_neox",
        "use_parallel_residual": False,
        "hidden_act": "gelu_fast",
        "rope_parameters": {**ROPE, "rope_type": "default", "partial_rotary_factor": 1.0},
        **TIED,
    },
    "qwen3-biases": {"model_type": "qwen3", "head_dim": 32, "attention_bias": True, **UNTIED},
}
"""Every architecture that is known, in the forms in which it comes."""


TORCH_RECIPES = [name for name in CONVERSIONS if CONVERSIONS[name].generator_numerics]
"""Those in which torch makes generators."""


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


def save_gguf(
    folder: Path, seed: int = 0, change: Callable[[Any], None] | None = None, **config: Any
) -> Checkpoint:
    """Write a random model of the Llama architecture, changed or not, as a float32 GGUF file."""
    model = random_model(seed, **{"model_type": "llama", **config})
    if change is not None:
        change(model)
    sizes = model.config
    writer = GGUFWriter(folder / "tiny.gguf", "llama")
    writer.add_block_count(sizes.num_hidden_layers)
    writer.add_context_length(sizes.max_position_embeddings)
    writer.add_embedding_length(sizes.hidden_size)
    writer.add_feed_forward_length(sizes.intermediate_size)
    writer.add_head_count(sizes.num_attention_heads)
    writer.add_head_count_kv(sizes.num_key_value_heads)
    writer.add_layer_norm_rms_eps(sizes.rms_norm_eps)
    writer.add_rope_freq_base(ROPE["rope_theta"])
    writer.add_vocab_size(sizes.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, sizes.num_hidden_layers)
    heads = {"q_proj": sizes.num_attention_heads, "k_proj": sizes.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        numbers = tensor.numpy()
        for part, count in heads.items():
            if part in name:  # GGUF keeps numbers that turn together side by side
                halves = numbers.reshape(count, 2, -1, numbers.shape[1])
                numbers = halves.swapaxes(1, 2).reshape(numbers.shape)
        place = names.get_name(name.removesuffix(".weight"))
        writer.add_tensor(f"{place}.weight", np.ascontiguousarray(numbers))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Checkpoint(folder, "tiny.gguf")


def numerics_of(recipe: str, **options: Any) -> Numerics:
    """How a recipe makes a generator on the CPU."""
    make = CONVERSIONS[recipe].generator_numerics
    assert make is not None
    return make(RECIPES[recipe].options(**options))


def decoder_of(
    model: Any, numerics: Numerics | None = None, num_slots: int = 4, slot_tokens: int = 128
) -> TorchDecoder:
    """A decoder of a model, which it takes apart; in float32 unless ``numerics`` say otherwise.

    Those that measure inputs do so on ``calibration_texts``.
    """
    numerics = numerics_of("fp32") if numerics is None else numerics
    dtypes = numerics.dtype, numerics.cache_dtype
    return TorchDecoder(
        fuse(model, numerics, calibration_texts()), *dtypes, num_slots, slot_tokens, threads=1
    )


def prepare_request(
    recipe: str, checkpoint: Checkpoint, folder: Path, device: DeviceName = "cpu", **options: Any
) -> PrepareRequest:
    """What preparing a generator takes: texts of other tokens than tests use if it calibrates."""
    entry = RECIPES[recipe]
    chosen = entry.options(**options)
    return PrepareRequest(
        checkpoint=checkpoint,
        recipe=recipe,
        options=chosen,
        kind="generator",
        head=None,
        device=device,
        threads=1,
        example={},
        calibration=calibration_texts() if entry.calibrates(chosen) else (),
        folder=folder,
    )


def open_request(
    recipe: str,
    folder: Path,
    num_slots: int = 4,
    slot_tokens: int = 128,
    max_waiting: int = 64,
    kv_cache: str = "float",
    **options: Any,
) -> OpenGeneratorRequest:
    """What opening it takes."""
    return OpenGeneratorRequest(
        folder=folder,
        recipe=recipe,
        options=RECIPES[recipe].options(**options),
        device="cpu",
        threads=1,
        cores=UnsharedCores(1),
        max_running=num_slots,
        max_waiting=max_waiting,
        max_tokens=slot_tokens,
        kv_cache=kv_cache,
    )


def calibration_texts() -> list[Arrays]:
    """What recipes that calibrate get: eight texts of other tokens than the tests use."""
    return [{"input_ids": np.array([random_tokens(60, seed)])} for seed in range(50, 58)]


def random_tokens(length: int, seed: int) -> list[int]:
    tokens: list[int] = np.random.default_rng(seed).integers(0, VOCABULARY, length).tolist()
    return tokens


def logits_of(model: Any, tokens: Sequence[int]) -> NDArray[np.float32]:
    """float32 (tokens, vocabulary), after each token, by the model's own forward pass."""
    with torch.no_grad():
        logits = model(torch.tensor([list(tokens)])).logits[0]
    array: NDArray[np.float32] = logits.float().numpy()
    return array


def greedy_by_transformers(
    checkpoint: Checkpoint, asked: Sequence[TokenRequest]
) -> list[list[int]]:
    """What ``generate`` of transformers makes of each request, alone."""
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32)
    answers = []
    for request in asked:
        ids = torch.tensor([request.prompt])
        new = request.max_new_tokens
        answer = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False
        )
        answers.append(answer[0, len(request.prompt) :].tolist())
    return answers
