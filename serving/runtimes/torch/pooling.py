"""Heads in torch, as ``serving.heads.pool`` defines them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from serving.seams import Head, Logits, PerToken, Pooled

AUTO_CLASSES: dict[type[Head], str] = {
    Pooled: "AutoModel",
    PerToken: "AutoModel",
    Logits: "AutoModelForSequenceClassification",
}
"""The transformers class whose models give what a kind of head reads."""


def pool(head: Head, output: Any, attention_mask: Tensor) -> Tensor:
    """Reduce what a transformers model returned to rows, float32 on the same device.

    Args:
        head: Which part of the output answers.
        output: What the model of the head's class in ``AUTO_CLASSES`` returned.
        attention_mask: int64 (rows, tokens), 1 for a token and 0 for padding on the right.
    """
    if isinstance(head, Logits):
        logits: Tensor = output.logits
        return logits.float()
    hidden: Tensor = output.last_hidden_state.float()
    weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
    match head:
        case PerToken():
            return hidden * weights
        case Pooled(pooling="cls"):
            return hidden[:, 0]
        case Pooled(pooling="last"):
            last = attention_mask.shape[1] - 1 - attention_mask.flip(1).argmax(1)
            return hidden[torch.arange(len(hidden), device=hidden.device), last]
        case Pooled(pooling="max"):
            return hidden.masked_fill(weights == 0, -torch.inf).amax(1)
    return (hidden * weights).sum(1) / weights.sum(1)
