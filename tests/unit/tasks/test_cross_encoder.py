"""Rerank scores are those of the sentence-transformers library, on tiny random models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from tests.unit.tasks.answering import answers, open_engine, prepare_and_open
from tests.unit.tasks.tiny_checkpoints import save_checkpoint

# Both run the same model in float32; only the width of the padding differs.
TOLERANCE = 1e-5
PAIRS = [
    ("the cat", "a mat"),
    ("Dogs bark", "never again, the cat sat on a mat"),
    ("x", "the dogs " * 40),
    ("the cat sat on " * 20, "a mat"),
    ("never again " * 20, "dogs bark " * 20),
]
ARCHITECTURES = ["bert", "xlm-roberta", "modernbert", "qwen3"]


def assert_same_as_the_library(checkpoint: Path, folder: Path) -> np.ndarray:
    """Compare in a batch and alone; return the scores."""
    library = CrossEncoder(str(checkpoint), device="cpu")
    expected = library.predict(PAIRS)
    task = prepare_and_open("rerank", checkpoint, folder)
    engine = open_engine(task, checkpoint, folder.with_name("weights"), PAIRS)
    together = answers(task, engine, PAIRS)
    assert together.shape == (len(PAIRS), task.width)
    np.testing.assert_allclose(together[:, 0], expected, atol=TOLERANCE)
    alone = np.concatenate([answers(task, engine, [pair]) for pair in PAIRS])
    np.testing.assert_allclose(alone[:, 0], expected, atol=TOLERANCE)
    return together


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_of_a_checkpoint_without_the_library_s_files(
    tmp_path: Path, architecture: str
) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", architecture, labels=1)
    scores = assert_same_as_the_library(checkpoint, tmp_path / "task")
    # The pairs' scores differ, or the comparison would show little.
    assert np.ptp(scores) > 100 * TOLERANCE


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_of_a_checkpoint_that_the_library_saved(tmp_path: Path, architecture: str) -> None:
    plain = save_checkpoint(tmp_path / "plain", architecture, labels=1)
    saved = tmp_path / "saved"
    CrossEncoder(
        str(plain), device="cpu", activation_fn=torch.nn.Identity(), max_length=24
    ).save_pretrained(str(saved))
    scores = assert_same_as_the_library(saved, tmp_path / "task")
    assert not 0 < scores.min() < scores.max() < 1  # logits


@pytest.mark.parametrize(
    "where",
    [
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
        {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"},
        {"sentence_transformers": {"activation_fn": "torch.nn.Sigmoid"}},
        {"sentence_transformers": {"version": "4.1.0"}},
        {
            "sentence_transformers": {"activation_fn": None},
            "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity",
        },
    ],
)
def test_the_activation_of_older_versions(tmp_path: Path, where: dict[str, Any]) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", "bert", labels=1)
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, **where}))
    assert_same_as_the_library(checkpoint, tmp_path / "task")


def test_the_default_prompt_stands_before_the_query_alone(tmp_path: Path) -> None:
    plain = save_checkpoint(tmp_path / "plain", "bert", labels=1)
    model = CrossEncoder(
        str(plain), device="cpu", prompts={"web": "on a mat: "}, default_prompt_name="web"
    )
    model.save_pretrained(str(tmp_path / "saved"))
    assert_same_as_the_library(tmp_path / "saved", tmp_path / "task")
