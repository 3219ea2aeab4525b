"""Encoders of each architecture, written as graphs and opened, beside transformers itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from serving.errors import ConfigError
from serving.recipes import RECIPES
from serving.runtimes.litert.runtime import why_not
from serving.runtimes.torch import encoder_parts
from serving.runtimes.torch.bert_architectures import ACTIVATIONS, ARCHITECTURES
from serving.runtimes.torch.pooling import AUTO_CLASSES
from serving.runtimes.torch.pretrained import load_pretrained
from serving.seams import Checkpoint, Combination, Head, Logits, Pooled
from tests.unit.runtimes.families import save_family
from tests.unit.runtimes.family_rows import LONGEST, batch_of, expected
from tests.unit.runtimes.tiny_models import TINY, open_prepared, prepare

HEADS: dict[str, Head] = {"embeddings": Pooled(), "classification": Logits()}

# float32 sums in another order and other polynomials, as a share of a row's length; the worst seen
# was 2e-6.
TOLERANCE = 1e-5


@pytest.mark.parametrize("task", HEADS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batches_of_any_size_give_what_transformers_gives(
    tmp_path: Path, architecture: str, task: str
) -> None:
    head = HEADS[task]
    save_family(tmp_path / "model", architecture, task)
    checkpoint = Checkpoint(tmp_path / "model")
    model = load_pretrained(checkpoint, AUTO_CLASSES[type(head)], torch.float32)
    example = batch_of([9, 4, 13])
    prepare("litert", "fp32", checkpoint, head, tmp_path / "artifact", example)
    engine = open_prepared("litert", "fp32", head, tmp_path / "artifact")
    for lengths in ([20, 3, 17, 1, 20], [1], [LONGEST], [5, 5], [LONGEST] * 3):
        batch = batch_of(lengths, seed=len(lengths))
        rows, wanted = engine.forward(batch), expected(model, head, batch)
        error = np.linalg.norm(rows - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
        assert error.max() < TOLERANCE, lengths


def test_tables_may_be_narrower_than_layers(tmp_path: Path) -> None:
    save_family(tmp_path / "model", "electra", "embeddings", embedding_size=16)
    checkpoint = Checkpoint(tmp_path / "model")
    model = load_pretrained(checkpoint, "AutoModel", torch.float32)
    batch = batch_of([9, 4, 13])
    prepare("litert", "fp32", checkpoint, Pooled(), tmp_path / "artifact", batch)
    rows = open_prepared("litert", "fp32", Pooled(), tmp_path / "artifact").forward(batch)
    np.testing.assert_allclose(rows, expected(model, Pooled(), batch), atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_transformers_own(tmp_path: Path, activation: str) -> None:
    save_family(tmp_path / "model", "bert", "embeddings", hidden_act=activation)
    checkpoint = Checkpoint(tmp_path / "model")
    model = load_pretrained(checkpoint, "AutoModel", torch.float32)
    batch = batch_of([9, 4, 13])
    prepare("litert", "fp32", checkpoint, Pooled(), tmp_path / "artifact", batch)
    rows = open_prepared("litert", "fp32", Pooled(), tmp_path / "artifact").forward(batch)
    np.testing.assert_allclose(rows, expected(model, Pooled(), batch), atol=1e-5)


def test_token_types_are_inputs_like_others(tmp_path: Path) -> None:
    save_family(tmp_path / "model", "bert", "classification")
    checkpoint = Checkpoint(tmp_path / "model")
    model = load_pretrained(checkpoint, AUTO_CLASSES[Logits], torch.float32)
    batch = batch_of([20, 7])
    batch["token_type_ids"] = (np.arange(20) > 4).astype(np.int64) * batch["attention_mask"]
    prepare("litert", "fp32", checkpoint, Logits(), tmp_path / "artifact", batch)
    engine = open_prepared("litert", "fp32", Logits(), tmp_path / "artifact")
    rows = engine.forward(batch)
    np.testing.assert_allclose(rows, expected(model, Logits(), batch), atol=1e-5)
    del batch["token_type_ids"]
    assert not np.allclose(engine.forward(batch), rows, atol=1e-3)


@pytest.mark.parametrize("recipe", ["fp32", "f16", "int8-dynamic", "int8-static"])
def test_what_is_not_written_is_refused_before_anything_loads(recipe: str) -> None:
    combination = Combination(recipe, "encoder", "cpu", "safetensors", {"model_type": "mpnet"})
    assert why_not(combination) == f"litert has no form of mpnet; it has {', '.join(ARCHITECTURES)}"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "bert", "hidden_act": "silu"}, "litert has no activation silu; it has "),
        ({"model_type": "distilbert", "activation": "silu"}, "litert has no activation silu"),
        ({"model_type": "bert", "is_decoder": True}, "this checkpoint's see those before them"),
        ({"model_type": "bert", "hidden_act": "relu"}, None),
        ({}, None),
    ],
)
def test_configurations_are_read_before_anything_loads(
    config: dict[str, Any], reason: str | None
) -> None:
    said = why_not(Combination("fp32", "encoder", "cpu", "safetensors", config))
    assert said is None if reason is None else said is not None and reason in said


def test_a_graph_that_computes_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = encoder_parts._FINDERS["bert"]
    mistaken = {"bert": lambda model: replace(find(model), activation="tanh")}
    monkeypatch.setattr(encoder_parts, "_FINDERS", mistaken)
    save_family(tmp_path / "model", "bert", "embeddings")
    with pytest.raises(ConfigError, match=r"model: as a LiteRT graph it computes something else"):
        prepare(
            "litert",
            "fp32",
            Checkpoint(tmp_path / "model"),
            Pooled(),
            tmp_path / "artifact",
            batch_of([9, 4, 13]),
        )


def test_a_model_of_other_parts_is_refused() -> None:
    model = BertModel(BertConfig(**TINY))
    del model.encoder.layer[0].intermediate
    with pytest.raises(ConfigError, match=r"other parts than transformers' own.*intermediate"):
        encoder_parts.find_parts(model, "litert")


def test_every_recipe_here_is_known() -> None:
    for recipe in ("fp32", "f16", "int8-dynamic", "int8-static"):
        assert RECIPES[recipe].encoder is not None
        assert why_not(Combination(recipe, "encoder", "cpu", "safetensors")) is None
