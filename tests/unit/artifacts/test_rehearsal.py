"""What could not be loaded is refused when a configuration is checked, and says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from serving.app.plan import make_plan
from serving.artifacts.rehearsal import rehearse
from serving.errors import ConfigError
from serving.settings import load_config
from tests.unit.runtimes.families import save_family
from tests.unit.tasks.tiny_checkpoints import POSITIONS, save_checkpoint

QUERY = "encoder.layer.0.attention.self.query.weight"

Tensors = dict[str, torch.Tensor]


def check(tmp_path: Path, folder: Path, task: str = "embeddings", **model: Any) -> list[str]:
    """What ``quantserve check`` does with one source, served in two variants: what was tried."""
    entry = {"name": "tiny", "source": str(folder), "task": task, **model}
    entry["variants"] = [{"name": "fp32"}, {"name": "int8-dynamic"}]
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"models": [entry]}))
    plan = make_plan(load_config(file))
    tried = rehearse((planned.artifact, planned.model.max_tokens) for planned in plan.variants)
    return [request.name for request in tried]


def change(folder: Path, how: Callable[[Tensors], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    how(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_what_can_be_loaded_passes(tmp_path: Path) -> None:
    assert check(tmp_path, save_checkpoint(tmp_path / "model", "bert")) == ["tiny:int8-dynamic"]


def make_nan(weights: Tensors) -> None:
    weights[QUERY][3, 3] = np.nan


def cut(weights: Tensors) -> None:
    weights[QUERY] = weights[QUERY][:16].clone()


def drop(weights: Tensors) -> None:
    del weights[QUERY]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (make_nan, f"weights that are NaN or infinite, in {QUERY}"),
        (cut, f"weights of another shape: {QUERY} is 16×32 where config.json asks for 32×32"),
        (drop, f"no weights for {QUERY}"),
    ],
)
def test_damaged_weights_are_named(
    tmp_path: Path, damage: Callable[[Tensors], None], said: str
) -> None:
    folder = save_checkpoint(tmp_path / "model", "bert")
    change(folder, damage)
    with pytest.raises(ConfigError) as caught:
        check(tmp_path, folder)
    assert str(caught.value).startswith("tiny:")
    assert said in str(caught.value)


def test_a_decoder_without_a_pad_token_is_refused(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "model", "gpt2", labels=3, pad_token_id=None)
    with pytest.raises(ConfigError, match="no pad_token_id"):
        check(tmp_path, folder, "classification")


def test_a_tokenizer_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "model", "bert")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="tokenizer"):
        check(tmp_path, folder)


def test_a_model_without_a_limit_needs_one_of_the_configuration(tmp_path: Path) -> None:
    save_family(tmp_path / "model", "bloom", "embeddings")
    with pytest.raises(ConfigError, match="set the model's max_tokens"):
        check(tmp_path, tmp_path / "model")
    check(tmp_path, tmp_path / "model", max_tokens=64)


def test_more_tokens_than_the_checkpoint_takes_are_refused(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "model", "bert")
    check(tmp_path, folder, max_tokens=POSITIONS)
    with pytest.raises(ConfigError, match=f"max_tokens is 512; the checkpoint takes {POSITIONS}"):
        check(tmp_path, folder, max_tokens=512)


def test_labels_that_begin_at_one_are_no_hindrance(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "model", "bert", labels=2)
    config = json.loads((folder / "config.json").read_text())
    labels = {"id2label": {1: "bad", 2: "good"}, "label2id": {"bad": 1, "good": 2}}
    (folder / "config.json").write_text(json.dumps({**config, **labels}))
    check(tmp_path, folder, "classification")
