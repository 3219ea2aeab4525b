"""Batches for the models of ``families``, and what transformers answers to each row by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from serving.heads import pool
from serving.seams import Arrays, Head, Logits
from tests.unit.runtimes.families import POSITIONS
from tests.unit.runtimes.tiny_models import padded_batch

VOCABULARY = 263
"""Tokens of the families' tokenizer."""

LONGEST = POSITIONS - 8
"""Tokens of a text: some families count positions from their padding's id on."""


def batch_of(lengths: list[int], seed: int = 0) -> dict[str, Any]:
    """Random tokens, padding's own (2) among them; padded with it."""
    batch = dict(padded_batch(lengths, seed))
    ids, mask = batch["input_ids"] % VOCABULARY, batch["attention_mask"]
    if ids.shape[1] > 2:
        ids[0, 2] = 2
    batch["input_ids"] = np.where(mask == 1, ids, 2)
    return batch


def expected(model: Any, head: Head, batch: Arrays) -> np.ndarray:
    """Rows of transformers, one by one and so without padding."""
    rows = []
    for index, length in enumerate(batch["attention_mask"].sum(axis=1)):
        arrays = {name: array[index : index + 1, :length] for name, array in batch.items()}
        with torch.inference_mode():
            output = model(**{name: torch.from_numpy(array) for name, array in arrays.items()})
        wanted = output.logits if isinstance(head, Logits) else output.last_hidden_state
        rows.append(pool(head, wanted.numpy(), arrays["attention_mask"])[0])
    return np.stack(rows)
