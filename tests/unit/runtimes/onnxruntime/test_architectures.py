"""Encoders of many architectures, exported and opened at sizes other than the exported ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from serving.errors import ConfigError
from serving.seams import Checkpoint, Head, Logits, Pooled
from tests.matrix import takes_all
from tests.unit.runtimes.family_rows import expected
from tests.unit.runtimes.tiny_models import open_prepared, padded_batch, prepare

SMALL: dict[str, Any] = {
    "vocab_size": 1000,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 80,
    "initializer_range": 0.1,
    "pad_token_id": 0,
}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "Bert": ("Bert", {}),
    "Roberta": ("Roberta", {"type_vocab_size": 1}),
    "XLMRoberta": ("XLMRoberta", {"type_vocab_size": 1}),
    "DistilBert": ("DistilBert", {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}),
    "MPNet": ("MPNet", {}),
    # A window shorter than the texts, so that some padding sees no token at all.
    "ModernBert": (
        "ModernBert",
        {"local_attention": 8, "global_attn_every_n_layers": 2, "cls_token_id": 1,
         "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2},
    ),
    "Qwen3": ("Qwen3", {"num_key_value_heads": 1, "head_dim": 16}),
}  # fmt: skip

EXPORTED = list(ARCHITECTURES) if takes_all() else ["Roberta", "ModernBert", "Qwen3"]
"""One that counts positions by what is no padding, one with windows, one that looks back alone,
unless all are wanted."""

# float32 sums in another order, as a share of a row's length; the worst seen was 6e-7.
TOLERANCE = 1e-5


def save(folder: Path, architecture: str, head: Head, **other: Any) -> tuple[Checkpoint, Any]:
    """Write a random model; returns it, too."""
    name, own = ARCHITECTURES[architecture]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**SMALL, "num_labels": 5, **own, **other})
    what = "ForSequenceClassification" if isinstance(head, Logits) else "Model"
    model = getattr(transformers, f"{name}{what}")(config).eval()
    model.save_pretrained(folder)
    return Checkpoint(folder), model


@pytest.mark.parametrize("architecture", EXPORTED)
def test_batches_of_any_size_give_what_torch_gives(tmp_path: Path, architecture: str) -> None:
    head = Pooled(pooling="last" if architecture == "Qwen3" else "mean")
    checkpoint, model = save(tmp_path / "model", architecture, head)
    prepare("onnxruntime", "fp32", checkpoint, head, tmp_path / "artifact")
    engine = open_prepared("onnxruntime", "fp32", head, tmp_path / "artifact")
    for lengths in ([40, 3, 17, 1, 40], [1], [2], [64], [5, 5], [30, 30, 30], [64] * 9):
        batch = padded_batch(lengths)
        rows, wanted = engine.forward(batch), expected(model, head, batch)
        error = np.linalg.norm(rows - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
        assert error.max() < TOLERANCE, lengths


def test_token_types_are_inputs_like_others(tmp_path: Path) -> None:
    head = Logits()
    checkpoint, model = save(tmp_path / "model", "Bert", head)
    batch = dict(padded_batch([20, 7]))
    batch["token_type_ids"] = (np.arange(20) > 4).astype(np.int64) * batch["attention_mask"]
    prepare("onnxruntime", "fp32", checkpoint, head, tmp_path / "artifact", example=batch)
    engine = open_prepared("onnxruntime", "fp32", head, tmp_path / "artifact")
    np.testing.assert_allclose(engine.forward(batch), expected(model, head, batch), atol=1e-5)
    batch["token_type_ids"] *= 0
    assert not np.allclose(engine.forward(batch), expected(model, head, padded_batch([1, 1])))


def test_a_square_example_does_not_tie_rows_to_tokens(tmp_path: Path) -> None:
    head = Pooled()
    checkpoint, model = save(tmp_path / "model", "Bert", head)
    square = padded_batch([3, 3, 2])
    prepare("onnxruntime", "fp32", checkpoint, head, tmp_path / "artifact", example=square)
    batch = padded_batch([9, 4])
    rows = open_prepared("onnxruntime", "fp32", head, tmp_path / "artifact").forward(batch)
    np.testing.assert_allclose(rows, expected(model, head, batch), atol=1e-5)


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    # Reformer pads its input to a whole number of chunks, by a branch over the length.
    config = transformers.ReformerConfig(
        vocab_size=1000, hidden_size=32, num_attention_heads=2, attention_head_size=16,
        axial_pos_embds_dim=(16, 16), axial_pos_shape=(8, 8), attn_layers=["local", "local"],
        is_decoder=False, num_hashes=1, num_buckets=4,
    )  # fmt: skip
    transformers.ReformerModel(config).save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match=r"model: it cannot be exported to ONNX.*another runtime"):
        prepare(
            "onnxruntime",
            "fp32",
            Checkpoint(tmp_path / "model"),
            Pooled(),
            tmp_path / "artifact",
            # Without padding, which would be refused first.
            padded_batch([16, 16]),
        )
    assert not list((tmp_path / "artifact").iterdir())
