"""Every family of text models in transformers, as a tiny random checkpoint with a tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
)

WIDTH, POSITIONS, LABELS = 32, 40, 5

MODELS: dict[str, Any] = {
    "embeddings": AutoModel,
    "classification": AutoModelForSequenceClassification,
}

BEYOND = {
    "cohere_compass_text": "rotary positions of two kinds, which its config does not default to",
    "emu3": "pictures and texts",
    "gemma3": "pictures and texts",
    "layoutlmv2": "needs detectron2",
    "llama4": "pictures and texts",
    "mistral4": "its config fits no small size",
    "mllama": "pictures and texts",
    "modernvbert": "pictures and texts",
    "neomme": "pictures and texts",
    "qwen3_5": "pictures and texts",
    "t5gemma": "two models in one config",
    "t5gemma2": "two models in one config",
    "ultravbert": "pictures and texts",
    "zamba": "layers that share weights in a pattern of many layers",
    "zamba2": "layers that share weights in a pattern of many layers",
}
"""What no small random config of one level can build, and why."""

WITHOUT_CLASSIFIER = {"clip_text_model", "molmo2_text", "tipsv2_text_model"}

ENCODERS = sorted(
    {*MODEL_FOR_MASKED_LM_MAPPING_NAMES, *MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES} - {*BEYOND}
)
DECODERS = sorted({*MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES} - {*BEYOND, *ENCODERS})

_SIZES: dict[int | None, tuple[str, ...]] = {
    WIDTH: (
        "hidden_size", "d_model", "dim", "n_embd", "emb_dim", "embed_dim", "embedding_size",
        "word_embed_proj_dim", "moe_intermediate_size", "shared_expert_intermediate_size",
        "entity_emb_size", "d_latents",
    ),
    2: (
        "num_hidden_layers", "n_layers", "n_layer", "num_layers", "encoder_layers",
        "decoder_layers", "num_decoder_layers", "num_encoder_layers", "num_experts_per_tok",
    ),
    4: (
        "num_attention_heads", "n_heads", "n_head", "num_heads", "encoder_attention_heads",
        "decoder_attention_heads", "num_key_value_heads", "num_experts", "n_routed_experts",
        "num_local_experts", "moe_num_experts", "linear_num_value_heads", "linear_num_key_heads",
        "rotary_dim",
    ),
    64: (
        "intermediate_size", "ffn_dim", "n_inner", "hidden_dim", "encoder_ffn_dim",
        "decoder_ffn_dim", "d_ff", "d_inner", "dff", "ffn_hidden_size",
    ),
    8: (
        "head_dim", "d_kv", "d_head", "kv_lora_rank", "q_lora_rank", "qk_rope_head_dim",
        "qk_nope_head_dim", "v_head_dim", "linear_key_head_dim", "linear_value_head_dim",
    ),
    1: ("n_group", "topk_group"),
    POSITIONS: (
        "max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "n_ctx",
        "max_source_positions",
    ),
}  # fmt: skip
"""What configs call their sizes."""

_LINEAR_AND_FULL = {"layer_types": ["linear_attention", "full_attention"]}
_WINDOW = {"sliding_window": 8}
# Windows and blocks are shorter than the texts, or they would not show.
_OWN: dict[str, dict[str, Any]] = {
    "big_bird": {"block_size": 2, "num_random_blocks": 1},
    "bigbird_pegasus": {"block_size": 2, "num_random_blocks": 1},
    "canine": {"local_transformer_stride": 8},
    "deepseek_v3": {"head_dim": None},
    "funnel": {"block_sizes": [1, 1], "num_decoder_layers": 1},
    "gemma3_text": _WINDOW,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "gpt_oss": _WINDOW,
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "use_mamba_kernels": False,
    },
    "layoutlmv3": {"visual_embed": False, "coordinate_size": 5, "shape_size": 6},
    "lilt": {"hidden_size": 48},
    "longformer": {"attention_window": [8, 8]},
    "luke": {"entity_vocab_size": 10},
    "mistral": _WINDOW,
    "modernbert": {"local_attention": 8},
    "olmo3": _WINDOW,
    "perceiver": {"num_latents": 8},
    "qwen3_5_text": _LINEAR_AND_FULL,
    "qwen3_next": _LINEAR_AND_FULL,
    "reformer": {
        "axial_pos_embds_dim": (16, 16),
        "axial_pos_shape": (8, 8),
        "attn_layers": ["lsh", "local"],
        "num_hashes": 1,
        "num_buckets": 4,
        "attention_head_size": 8,
        "is_decoder": False,
        "max_position_embeddings": 64,
    },
    "rembert": {"input_embedding_size": 32, "output_embedding_size": 32},
    "roc_bert": {"pronunciation_embed_dim": 16, "shape_embed_dim": 16},
    "t5": {"decoder_start_token_id": 0},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
}


def save_family(folder: Path, family: str, task: str, **config: Any) -> Any:
    """Write a random model of a family for a task, with its tokenizer; returns its config."""
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    made = _small_config(family, tokenizer, **config)
    # Of a family with several models without a head (funnel), transformers looks for names here.
    made.architectures = made.architectures or []
    model = MODELS[task].from_config(made)
    with torch.no_grad():
        # New ones are all 0 or all 1, so that their place in a model would not show.
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return made


def _small_config(family: str, tokenizer: Any, **config: Any) -> Any:
    default = AutoConfig.for_model(family).to_dict()
    small: dict[str, Any] = {
        name: size for size, names in _SIZES.items() for name in names if name in default
    }
    # An id that a new config takes from the published vocabulary has no place in this one.
    for name, value in default.items():
        if name.endswith("_token_id") and isinstance(value, int) and value >= len(tokenizer):
            small[name] = tokenizer.eos_token_id
    special = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "num_labels": LABELS,
        # Five times the usual spread, or every layer would be close to the identity.
        "initializer_range": 0.1,
    }
    return AutoConfig.for_model(family, **{**small, **special, **_OWN.get(family, {}), **config})


def _tokenizer() -> Any:
    """Bytes between two special tokens; padding is neither the first token nor without one.

    It names no limit: that is the model's to tell.
    """
    pieces = ["<a>", "<b>", "[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
    vocabulary = {piece: i for i, piece in enumerate([*pieces, *sorted(ByteLevel.alphabet())])}
    tokenizer = Tokenizer(BPE(vocabulary, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        unk_token="[UNK]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        model_input_names=["input_ids", "attention_mask"],
    )
