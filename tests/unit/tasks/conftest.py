"""A tiny real tokenizer in a folder, as a checkpoint has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from serving.seams import Checkpoint

WORDS = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "a", "b", "c", "d"]
CLS, SEP = 1, 2
MODEL_CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": len(WORDS),
    "hidden_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 4,
    "max_position_embeddings": 16,
}


@pytest.fixture
def tokenizer() -> Tokenizer:
    """One token per word, between [CLS] and [SEP]."""
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    return tokenizer


class Folder:
    """A checkpoint without weights, to which a test adds what it needs."""

    def __init__(self, path: Path, tokenizer: Tokenizer) -> None:
        self.path = path
        self.checkpoint = Checkpoint(path)
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]"
        ).save_pretrained(path)
        self.configure()

    def configure(self, **changes: Any) -> None:
        """Write the model's config; a key that is None is left out."""
        config = {**MODEL_CONFIG, **changes}
        self.write(
            "config.json", {key: value for key, value in config.items() if value is not None}
        )

    def write(self, name: str, content: Any) -> None:
        """Write one JSON file."""
        file = self.path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))


@pytest.fixture
def folder(tmp_path: Path, tokenizer: Tokenizer) -> Folder:
    """A BERT-like checkpoint whose positions end at 16."""
    return Folder(tmp_path / "checkpoint", tokenizer)
