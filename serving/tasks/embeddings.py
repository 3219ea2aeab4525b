"""Embeddings: one unit vector per text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from serving.errors import ConfigError, InvalidField
from serving.seams import Checkpoint
from serving.tasks.text_encoder import (
    Encode,
    load_model_config,
    load_text_encoder,
    read_json,
)

Pooling = Literal["mean", "cls"]
_KNOWN_MODULES = {"Transformer", "Pooling", "Normalize"}


@dataclass(frozen=True, slots=True)
class EmbeddingHead:
    """Pools the last hidden state to one unit vector per text."""

    pooling: Pooling
    auto_class: str = "AutoModel"

    def rows(self, model_output: Any, attention_mask: Any) -> torch.Tensor:
        """Unit vectors, float32 (rows, hidden size).

        Mean pooling weighs every token alike and leaves padding out, as sentence-transformers
        does; sums run in float32, since a bf16 sum over many tokens loses digits.
        """
        hidden = model_output.last_hidden_state.float()
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * weights).sum(1) / weights.sum(1)
        return torch.nn.functional.normalize(pooled, dim=-1)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The task ``embeddings`` for one checkpoint."""

    head: EmbeddingHead
    encode: Encode
    max_tokens: int
    width: int
    labels: tuple[str, ...] = ()

    def check_dimensions(self, dimensions: int | None) -> None:
        """Raise ``InvalidField`` if the model has fewer than ``dimensions``."""
        if dimensions is not None and dimensions > self.width:
            raise InvalidField(
                f"dimensions is {dimensions}; this model has {self.width}", param="dimensions"
            )

    def decode(self, rows: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
        """Keep the leading ``dimensions`` of each vector and scale it to unit length again."""
        if dimensions is None or dimensions == self.width:
            return rows
        cut = rows[:, :dimensions]
        norms = np.linalg.norm(cut, axis=1, keepdims=True)
        scaled: NDArray[np.float32] = cut / np.maximum(norms, np.finfo(np.float32).tiny)
        return scaled


def load(checkpoint: Checkpoint, max_tokens: int | None) -> Embeddings:
    """Load the task for a checkpoint, with the pooling that its sentence-transformers files name.

    Raises:
        ConfigError: The checkpoint asks for a module or a pooling that is not built here.
    """
    text_encoder = load_text_encoder(checkpoint, max_tokens)
    return Embeddings(
        head=EmbeddingHead(_pooling(checkpoint)),
        encode=text_encoder.encode,
        max_tokens=text_encoder.max_tokens,
        width=load_model_config(checkpoint).hidden_size,
    )


def _pooling(checkpoint: Checkpoint) -> Pooling:
    modules_file = checkpoint.folder / "modules.json"
    modules = json.loads(modules_file.read_text("utf-8")) if modules_file.is_file() else []
    kinds = {module["type"].rpartition(".")[2] for module in modules}
    if kinds - _KNOWN_MODULES:
        unknown = ", ".join(sorted(kinds - _KNOWN_MODULES))
        raise ConfigError(f"{modules_file}: unsupported sentence-transformers module {unknown}")
    pooling = read_json(checkpoint, "1_Pooling/config.json")
    chosen = [name for name, on in pooling.items() if name.startswith("pooling_mode") and on]
    match chosen:
        case [] | ["pooling_mode_mean_tokens"]:
            return "mean"
        case ["pooling_mode_cls_token"]:
            return "cls"
    raise ConfigError(f"{checkpoint.folder}: unsupported pooling {', '.join(chosen)}")
