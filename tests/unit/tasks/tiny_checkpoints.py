"""Tiny random checkpoints of many architectures, each with the tokenizer of its kind."""

from __future__ import annotations

import string
from collections.abc import Callable
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
    BertTokenizer,
    MPNetTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

WORDS = ["the", "cat", "sat", "on", "a", "mat", "dogs", "bark", "never", "again"]
POSITIONS = 40
"""Tokens that a text may have, whatever the architecture's table of positions holds beside."""

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    # Five times the usual spread, or every layer would be close to the identity.
    "initializer_range": 0.1,
}
DISTILBERT_SHAPE: dict[str, Any] = {
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 64,
    "initializer_range": 0.1,
}
OWN: dict[str, dict[str, Any]] = {
    "bert": {**SHAPE, "max_position_embeddings": POSITIONS},
    "roberta": {**SHAPE, "max_position_embeddings": POSITIONS + 2},
    "xlm-roberta": {**SHAPE, "max_position_embeddings": POSITIONS + 2},
    "distilbert": {**DISTILBERT_SHAPE, "max_position_embeddings": POSITIONS},
    "mpnet": {**SHAPE, "max_position_embeddings": POSITIONS + 2},
    "modernbert": {
        **SHAPE,
        "max_position_embeddings": POSITIONS,
        "local_attention": 8,
        "initializer_cutoff_factor": 2.0,
    },
    "qwen3": {
        **SHAPE,
        "head_dim": 8,
        "num_key_value_heads": 2,
        "max_position_embeddings": POSITIONS,
    },
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS},
}


def save_checkpoint(
    folder: Path, architecture: str, *, labels: int | None = None, **config: Any
) -> Path:
    """Write a random model with its tokenizer to ``folder``.

    Args:
        folder: Made if it is not there.
        architecture: A key of ``OWN``.
        labels: Logits of a classifier; None writes the model without one.
        config: More of the model's config.
    """
    torch.manual_seed(sum(architecture.encode()))
    tokenizer = TOKENIZERS[architecture]()
    # Published tokenizers say it; of RoBERTa and its relatives the library knows it only from them.
    tokenizer.model_max_length = POSITIONS
    special = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if labels is not None:
        special["num_labels"] = labels
    made = AutoConfig.for_model(architecture, **{**OWN[architecture], **special, **config})
    maker: Any = AutoModel if labels is None else AutoModelForSequenceClassification
    maker.from_config(made).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _bert_tokenizer() -> Any:
    return BertTokenizer(vocab=_word_pieces("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))


def _mpnet_tokenizer() -> Any:
    return MPNetTokenizer(vocab=_word_pieces("<s>", "<pad>", "</s>", "[UNK]", "<mask>"))


def _xlm_roberta_tokenizer() -> Any:
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*(f"▁{word}" for word in WORDS), "▁", *string.ascii_letters, *string.punctuation]
    vocab = [(piece, 0.0) for piece in special]
    vocab += [(piece, -float(len(piece) < 2) - 1) for piece in pieces]
    return XLMRobertaTokenizer(vocab=[*vocab, ("<mask>", 0.0)])


def _roberta_tokenizer() -> Any:
    return RobertaTokenizer(vocab=_bytes("<s>", "<pad>", "</s>", "<unk>", "<mask>"), merges=[])


def _modernbert_tokenizer() -> Any:
    return _byte_level("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", "[PAD]", "[CLS]", "[SEP]")


def _qwen_tokenizer() -> Any:
    """Ends every text with the token that also pads, as Qwen3's embedding models do."""
    tokenizer = Qwen2Tokenizer(
        vocab=_bytes("<|endoftext|>", "<|im_end|>"), merges=[], padding_side="left"
    )
    end = "<|endoftext|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}",
        pair=f"$A $B {end}",
        special_tokens=[(end, tokenizer.convert_tokens_to_ids(end))],
    )
    return tokenizer


def _gpt2_tokenizer() -> Any:
    """Pads with a token of its own, whose id is 4."""
    return _byte_level("$A", "$A $B", "<a>", "<b>", "<c>", "<d>", "[PAD]")


TOKENIZERS: dict[str, Callable[[], Any]] = {
    "bert": _bert_tokenizer,
    "roberta": _roberta_tokenizer,
    "xlm-roberta": _xlm_roberta_tokenizer,
    "distilbert": _bert_tokenizer,
    "mpnet": _mpnet_tokenizer,
    "modernbert": _modernbert_tokenizer,
    "qwen3": _qwen_tokenizer,
    "gpt2": _gpt2_tokenizer,
}


def _byte_level(single: str, pair: str, *special: str) -> Any:
    vocab = _bytes(*special)
    tokenizer = Tokenizer(BPE(vocab, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = TemplateProcessing(
        single=single, pair=pair, special_tokens=[(name, vocab[name]) for name in special]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        model_input_names=["input_ids", "attention_mask"],
    )


def _word_pieces(*special: str) -> dict[str, int]:
    letters = string.ascii_letters + string.digits + string.punctuation
    pieces = [*special, *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}


def _bytes(*special: str) -> dict[str, int]:
    pieces = [*special, *sorted(ByteLevel.alphabet())]
    return {piece: number for number, piece in enumerate(pieces)}
