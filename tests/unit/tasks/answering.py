"""Answers of a task over a checkpoint: prepared, opened, and run by transformers' own model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoModelForSequenceClassification

from serving.heads import pool
from serving.seams import Checkpoint, EncoderTask, Input, Logits
from serving.tasks import TASKS


def prepare_and_open(
    task: str, checkpoint: Path, folder: Path, max_tokens: int | None = None
) -> Any:
    """Let a task write ``folder``, which is made, and open it."""
    folder.mkdir()
    TASKS[task].prepare(Checkpoint(checkpoint), folder)
    return TASKS[task].open(folder, max_tokens)


def answers(
    task: EncoderTask, checkpoint: Path, inputs: Sequence[Input], dimensions: int | None = None
) -> NDArray[np.float32]:
    """Answer inputs in one batch, over-long ones cut."""
    maker: Any = AutoModelForSequenceClassification if isinstance(task.head, Logits) else AutoModel
    model = maker.from_pretrained(checkpoint).eval()
    arrays = task.collate(task.prepare(inputs, True))
    with torch.inference_mode():
        output = model(**{name: torch.from_numpy(array) for name, array in arrays.items()})
    raw = output.logits if isinstance(task.head, Logits) else output.last_hidden_state
    return task.decode(pool(task.head, raw.numpy(), arrays["attention_mask"]), dimensions)
