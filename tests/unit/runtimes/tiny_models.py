"""Small random encoders, and how to prepare and open them as a replica does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel

from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.runtimes.torch.conversions import CONVERSIONS
from serving.seams import (
    Arrays,
    Checkpoint,
    EncoderEngine,
    Head,
    Logits,
    OpenRequest,
    Pooled,
    Prepared,
    PrepareRequest,
)

TINY: dict[str, Any] = {
    "vocab_size": 1000,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "max_position_embeddings": 64,
    # Five times the usual spread, or every layer would be close to the identity.
    "initializer_range": 0.1,
}

HEADS: dict[str, Head] = {"embeddings": Pooled(), "classification": Logits()}

TORCH_ENCODERS = [name for name in CONVERSIONS if CONVERSIONS[name].convert_encoder is not None]
"""Recipes in which torch makes encoders on the CPU."""

WIDTHS = {"embeddings": TINY["hidden_size"], "classification": 5}


def save_model(folder: Path, task: str, seed: int = 0, **config: Any) -> Checkpoint:
    """Write a random BERT for ``task``; ``config`` overrides ``TINY``."""
    torch.manual_seed(seed)
    bert = BertConfig(**{**TINY, "num_labels": 5, **config})
    model = BertModel(bert) if task == "embeddings" else BertForSequenceClassification(bert)
    with torch.no_grad():
        # New ones are all 0 or all 1; of equal tensors, some converters keep only one.
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(folder)
    return Checkpoint(folder)


def padded_batch(lengths: Sequence[int], seed: int = 0) -> Arrays:
    """Random token ids of the given lengths, padded with 0 on the right."""
    ids = np.random.default_rng(seed).integers(1, 1000, (len(lengths), max(lengths)))
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    return {"input_ids": ids * mask, "attention_mask": mask}


def one_row(batch: Arrays, index: int) -> Arrays:
    """The row ``index`` of a batch without its padding."""
    length = int(batch["attention_mask"][index].sum())
    return {name: array[index : index + 1, :length].copy() for name, array in batch.items()}


def calibration_batches() -> list[Arrays]:
    """What recipes that calibrate get: eight batches of other tokens than the tests use."""
    return [padded_batch([8, 16, 24, 32, 40, 48, 56, 64], seed) for seed in range(100, 108)]


def prepare(
    runtime: str,
    recipe: str,
    checkpoint: Checkpoint,
    head: Head,
    folder: Path,
    example: Arrays | None = None,
    calibration: Sequence[Arrays] | None = None,
    threads: int = 1,
    **options: Any,
) -> Prepared:
    """Write an encoder's artifact on the CPU."""
    entry = RECIPES[recipe]
    chosen = entry.options(**options)
    wanted = calibration_batches() if calibration is None else calibration
    folder.mkdir(parents=True, exist_ok=True)
    return RUNTIMES[runtime].prepare(
        PrepareRequest(
            checkpoint=checkpoint,
            recipe=recipe,
            options=chosen,
            kind="encoder",
            head=head,
            device="cpu",
            threads=threads,
            example=padded_batch([9, 4, 30]) if example is None else example,
            calibration=wanted if entry.calibrates(chosen) else (),
            folder=folder,
        )
    )


def open_prepared(
    runtime: str, recipe: str, head: Head, folder: Path, threads: int = 1, **options: Any
) -> EncoderEngine:
    """Open what ``prepare`` wrote."""
    return RUNTIMES[runtime].open_encoder(
        OpenRequest(
            folder=folder,
            recipe=recipe,
            options=RECIPES[recipe].options(**options),
            head=head,
            device="cpu",
            threads=threads,
        )
    )
