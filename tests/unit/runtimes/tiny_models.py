"""Small random checkpoints, and heads that do what the tasks' heads do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification, BertModel

from serving.runtimes import get_variant
from serving.seams import Checkpoint, EncoderEngine, EncoderHead, LoadRequest

TINY = {
    "vocab_size": 1000,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "max_position_embeddings": 64,
    # Five times the usual spread, or every layer would be close to the identity.
    "initializer_range": 0.1,
}


class MeanHead:
    """Mean of the token vectors, of length one."""

    auto_class = "AutoModel"

    def rows(self, model_output: Any, attention_mask: Any) -> Any:
        mask = attention_mask.unsqueeze(-1).float()
        total = (model_output.last_hidden_state.float() * mask).sum(1)
        return functional.normalize(total / mask.sum(1), dim=-1)


class LogitsHead:
    """Class scores before the softmax."""

    auto_class = "AutoModelForSequenceClassification"

    def rows(self, model_output: Any, attention_mask: Any) -> Any:
        return model_output.logits


HEADS: dict[str, EncoderHead] = {"embeddings": MeanHead(), "classification": LogitsHead()}


def save_model(folder: Path, task: str, seed: int = 0, **config: Any) -> Checkpoint:
    """Write a random BERT for ``task``; ``config`` overrides ``TINY``."""
    torch.manual_seed(seed)
    bert = BertConfig(**{**TINY, "num_labels": 5, **config})
    model = BertModel(bert) if task == "embeddings" else BertForSequenceClassification(bert)
    model.save_pretrained(folder)
    return Checkpoint(folder)


def load(
    variant: str, checkpoint: Checkpoint, task: str, threads: int = 2, **options: Any
) -> EncoderEngine:
    """Build the engine of ``variant`` on the CPU."""
    entry = get_variant(variant)
    validated = entry.options(**options)
    return entry.load(LoadRequest(checkpoint, HEADS[task], "cpu", threads, validated))
