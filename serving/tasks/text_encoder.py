"""Text to token ids, the same for every task that encodes text."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer

from serving.errors import ConfigError, InvalidField
from serving.seams import Checkpoint

Encode = Callable[[Sequence[str], bool], list[list[int]]]
"""``TextEncoder.encode``: texts, and whether over-long ones are cut, to token ids."""

PADDED_POSITIONS = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet"}
"""Model types whose first positions belong to padding: text starts at ``pad_token_id + 1``."""


class TextEncoder:
    """A tokenizer with a length limit.

    Two tokenizers are kept, one that truncates and one that does not, because switching the
    setting of one is not safe while another thread encodes.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._whole = tokenizer
        self._whole.no_padding()
        self._whole.no_truncation()
        self._truncating = Tokenizer.from_str(tokenizer.to_str())
        self._truncating.enable_truncation(max_tokens)

    def encode(self, texts: Sequence[str], truncate: bool) -> list[list[int]]:
        """Token ids of each text, special tokens included.

        Raises:
            InvalidField: A text is longer than the limit and ``truncate`` is False.
        """
        tokenizer = self._truncating if truncate else self._whole
        token_ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]
        for index, ids in enumerate(token_ids):
            if len(ids) > self.max_tokens:
                raise InvalidField(
                    f"input[{index}] has {len(ids)} tokens; the limit is {self.max_tokens}. "
                    "Shorten it, or send truncate: true to have it cut",
                    param="input",
                )
        return token_ids


def load_text_encoder(checkpoint: Checkpoint, max_tokens: int | None) -> TextEncoder:
    """Load a checkpoint's tokenizer with the smallest of all limits that apply.

    Raises:
        ConfigError: There is no fast tokenizer, or no limit is known.
    """
    tokenizer = AutoTokenizer.from_pretrained(
        checkpoint.folder, **source_arguments(checkpoint), use_fast=True
    )
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ConfigError(f"{checkpoint.folder}: no fast tokenizer (tokenizer.json) can be made")
    config = load_model_config(checkpoint)
    limits = [
        max_tokens,
        read_json(checkpoint, "sentence_bert_config.json").get("max_seq_length"),
        _position_limit(config),
        tokenizer.model_max_length,
    ]
    # Tokenizers without a limit of their own report a huge number.
    known = [limit for limit in limits if limit is not None and limit < 1_000_000]
    if not known:
        raise ConfigError(f"{checkpoint.folder}: no length limit is known; set max_tokens")
    return TextEncoder(backend, min(known))


def load_model_config(checkpoint: Checkpoint) -> Any:
    """Read a checkpoint's transformers config."""
    return AutoConfig.from_pretrained(checkpoint.folder, **source_arguments(checkpoint))


def _position_limit(config: Any) -> int | None:
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions is not None and config.model_type in PADDED_POSITIONS:
        return positions - int(config.pad_token_id) - 1
    return positions


def read_json(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """Read an optional JSON file of a checkpoint; an absent one is empty."""
    file = checkpoint.folder / name
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def source_arguments(checkpoint: Checkpoint) -> dict[str, Any]:
    """What every ``from_pretrained`` takes beside the folder; nothing is fetched."""
    arguments: dict[str, Any] = {
        "local_files_only": True,
        "trust_remote_code": checkpoint.trust_remote_code,
    }
    if checkpoint.gguf_file is not None:
        arguments["gguf_file"] = checkpoint.gguf_file
    return arguments
