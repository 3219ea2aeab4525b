"""Encoders of each architecture, compiled and opened, beside transformers itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from serving.errors import ConfigError
from serving.runtimes.torch import encoder_parts
from serving.runtimes.torch.bert_architectures import ACTIVATIONS, ARCHITECTURES
from serving.runtimes.torch.pooling import AUTO_CLASSES
from serving.runtimes.torch.pretrained import load_pretrained
from serving.runtimes.tvm import kernels
from serving.runtimes.tvm.runtime import why_not
from serving.seams import Checkpoint, Combination, Head, Logits, Pooled
from tests.matrix import pairs
from tests.unit.runtimes.families import save_family
from tests.unit.runtimes.family_rows import LONGEST, batch_of, expected
from tests.unit.runtimes.tiny_models import open_prepared, prepare

HEADS: dict[str, Head] = {"embeddings": Pooled(), "classification": Logits()}

# float32 sums in another order and other polynomials, as a share of a row's length; the worst seen
# was 2e-6.
TOLERANCE = 1e-5


@pytest.mark.parametrize(("architecture", "task"), pairs(ARCHITECTURES, HEADS))
def test_batches_of_any_size_give_what_transformers_gives(
    tmp_path: Path, architecture: str, task: str
) -> None:
    head = HEADS[task]
    save_family(tmp_path / "model", architecture, task)
    checkpoint = Checkpoint(tmp_path / "model")
    model = load_pretrained(checkpoint, AUTO_CLASSES[type(head)], torch.float32)
    prepare("tvm", "fp32", checkpoint, head, tmp_path / "artifact", batch_of([9, 4, 13]))
    engine = open_prepared("tvm", "fp32", head, tmp_path / "artifact")
    for lengths in ([20, 3, 17, 1, 20], [1], [LONGEST], [5, 5], [LONGEST] * 3):
        batch = batch_of(lengths, seed=len(lengths))
        rows, wanted = engine.forward(batch), expected(model, head, batch)
        error = np.linalg.norm(rows - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
        assert error.max() < TOLERANCE, lengths


# Those that are compared above have gelu.
@pytest.mark.parametrize("activation", sorted(set(ACTIVATIONS) - {"gelu"}))
def test_every_activation_is_transformers_own(tmp_path: Path, activation: str) -> None:
    # Tables may be narrower than layers, and widths no multiple of the lanes.
    save_family(
        tmp_path / "model",
        "electra",
        "embeddings",
        hidden_act=activation,
        embedding_size=20,
        hidden_size=24,
        intermediate_size=40,
        num_attention_heads=2,
    )
    checkpoint = Checkpoint(tmp_path / "model")
    model = load_pretrained(checkpoint, "AutoModel", torch.float32)
    batch = batch_of([9, 4, 13])
    prepare("tvm", "fp32", checkpoint, Pooled(), tmp_path / "artifact", batch)
    rows = open_prepared("tvm", "fp32", Pooled(), tmp_path / "artifact").forward(batch)
    np.testing.assert_allclose(rows, expected(model, Pooled(), batch), atol=1e-5)


def test_there_are_kernels_of_every_activation() -> None:
    assert set(kernels.ACTIVATIONS) == set(ACTIVATIONS)


def test_token_types_are_inputs_like_others(tmp_path: Path) -> None:
    save_family(tmp_path / "model", "bert", "classification")
    checkpoint = Checkpoint(tmp_path / "model")
    model = load_pretrained(checkpoint, AUTO_CLASSES[Logits], torch.float32)
    batch = batch_of([20, 7])
    batch["token_type_ids"] = (np.arange(20) > 4).astype(np.int64) * batch["attention_mask"]
    prepare("tvm", "fp32", checkpoint, Logits(), tmp_path / "artifact", batch)
    engine = open_prepared("tvm", "fp32", Logits(), tmp_path / "artifact")
    rows = engine.forward(batch)
    np.testing.assert_allclose(rows, expected(model, Logits(), batch), atol=1e-5)
    del batch["token_type_ids"]
    assert not np.allclose(engine.forward(batch), rows, atol=1e-3)


def test_what_is_not_written_is_refused_before_anything_loads() -> None:
    combination = Combination("fp32", "encoder", "cpu", "safetensors", {"model_type": "mpnet"})
    assert why_not(combination) == f"tvm has no form of mpnet; it has {', '.join(ARCHITECTURES)}"
    reason = why_not(Combination("int8-dynamic", "encoder", "cpu", "safetensors"))
    assert reason == "tvm has no recipe int8-dynamic; it has fp32, f16"
    assert why_not(Combination("fp32", "generator", "cpu", "safetensors")) is not None
    assert why_not(Combination("fp32", "encoder", "cpu", "safetensors")) is None


def test_a_graph_that_computes_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = encoder_parts._FINDERS["bert"]
    mistaken: Any = {"bert": lambda model: replace(find(model), activation="tanh")}
    monkeypatch.setattr(encoder_parts, "_FINDERS", mistaken)
    save_family(tmp_path / "model", "bert", "embeddings")
    with pytest.raises(ConfigError, match=r"model: compiled by TVM it computes something else"):
        prepare(
            "tvm",
            "fp32",
            Checkpoint(tmp_path / "model"),
            Pooled(),
            tmp_path / "artifact",
            batch_of([9, 4, 13]),
        )
