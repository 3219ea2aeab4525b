"""Logits become scores under names, as the checkpoint's config says and transformers does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import pipeline

from serving.errors import ConfigError, InvalidField
from serving.seams import NO_OPTIONS, Checkpoint, Logits, Outcome, Timings
from serving.tasks.classification import TASK, Classification
from tests.matrix import pairs
from tests.unit.tasks.answering import answers, open_engine, prepare_and_open
from tests.unit.tasks.conftest import Folder
from tests.unit.tasks.tiny_checkpoints import save_checkpoint

# Both run the same model in float32; only the width of the padding differs.
TOLERANCE = 1e-5
TEXTS = ["The cat", "Dogs bark at THE cat, and never again!", "x", "the cat sat on a mat " * 3]


def task_of(folder: Folder, tmp_path: Path, **config: Any) -> Classification:
    folder.configure(**config)
    task = prepare_and_open("classification", folder.path, tmp_path / "task")
    assert isinstance(task, Classification)
    return task


ARCHITECTURES = ["bert", "distilbert", "roberta", "gpt2", "qwen3"]
PROBLEMS = [
    (3, None),
    (3, "single_label_classification"),
    (3, "multi_label_classification"),
    (1, None),
    (1, "regression"),
    (2, "regression"),
]
"""Labels, and what the config calls it."""


@pytest.mark.parametrize(("architecture", "problem_type"), pairs(ARCHITECTURES, PROBLEMS))
def test_scores_are_those_of_transformers_own_pipeline(
    tmp_path: Path, architecture: str, problem_type: tuple[int, str | None]
) -> None:
    labels, problem = problem_type
    checkpoint = save_checkpoint(
        tmp_path / "checkpoint", architecture, labels=labels, problem_type=problem
    )
    task = prepare_and_open("classification", checkpoint, tmp_path / "task")
    library: Any = pipeline("text-classification", str(checkpoint), device="cpu")
    expected = [
        {entry["label"]: entry["score"] for entry in entries}
        for entries in library(TEXTS, top_k=None, truncation=True)
    ]
    engine = open_engine(task, checkpoint, tmp_path / "weights", TEXTS)
    rows = answers(task, engine, TEXTS)
    np.testing.assert_allclose(
        rows, [[scores[label] for label in task.labels] for scores in expected], atol=TOLERANCE
    )
    alone = np.concatenate([answers(task, engine, [text]) for text in TEXTS])
    np.testing.assert_allclose(alone, rows, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("id2label", "expected"),
    [
        ({"2": "high", "0": "low", "1": "mid"}, ("low", "mid", "high")),
        ({"1": "no", "2": "yes"}, ("no", "yes")),
        ({"0": 1, "1": 5}, ("1", "5")),
        ({"0": None, "1": "good"}, ("LABEL_0", "good")),
        ({"0": True, "1": 2.5}, ("True", "2.5")),
        (None, ("LABEL_0", "LABEL_1")),
    ],
)
def test_labels_in_the_order_of_their_numbers(
    folder: Folder, tmp_path: Path, id2label: dict[str, Any] | None, expected: tuple[str, ...]
) -> None:
    task = task_of(folder, tmp_path, id2label=id2label)
    assert (task.labels, task.width) == (expected, len(expected))


@pytest.mark.parametrize(
    ("id2label", "message"),
    [
        ({"0": "a", "1": "b", "2": "a"}, "two labels are called 'a', so that an answer could"),
        ({"0": 1, "1": "1"}, "two labels are called '1'"),
        ({"0": "a", "2": "b"}, "numbers 0, 2; expected one label for each of 0, 1"),
        ({"first": "a"}, "config cannot be read: invalid literal"),
    ],
)
def test_labels_that_are_not_clear_are_refused(
    folder: Folder, tmp_path: Path, id2label: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        task_of(folder, tmp_path, id2label=id2label)


def test_weights_without_a_classifier_are_refused(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds a BertModel, which has no classifier"):
        task_of(folder, tmp_path, architectures=["BertModel"])


def test_a_decoder_that_cannot_tell_padding_is_refused(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "gpt2", "gpt2", labels=2, pad_token_id=None)
    with pytest.raises(
        ConfigError, match="no pad_token_id, by which GPT2ForSequenceClassification finds the last"
    ):
        TASK.prepare(Checkpoint(checkpoint), tmp_path)


def test_a_decoder_s_texts_are_padded_with_its_own_token(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "gpt2", "gpt2", labels=2)
    task = prepare_and_open("classification", checkpoint, tmp_path / "task")
    arrays = task.collate(task.prepare(["ab", "a"], False))
    assert arrays["input_ids"][:, -1].tolist() == [4, 4]
    assert arrays.keys() == {"input_ids", "attention_mask"}


def test_a_model_that_answers_from_the_last_position_is_refused(folder: Folder, tmp_path) -> None:
    with pytest.raises(ConfigError, match="answers from the last position of a row"):
        task_of(
            folder, tmp_path, model_type="xlnet", d_model=4, n_head=1, max_position_embeddings=None
        )


def test_a_very_negative_logit_gives_zero(folder: Folder, tmp_path: Path) -> None:
    task = task_of(folder, tmp_path, id2label={"0": "spam"})
    assert task.head == Logits(activation="sigmoid")
    assert task.decode(np.array([[-1000.0]], np.float32)).tolist() == [[0.0]]


@pytest.mark.parametrize("name", ["dimensions", "prompt_name", "normalize"])
def test_options_belong_to_embeddings(folder: Folder, tmp_path: Path, name: str) -> None:
    task = task_of(folder, tmp_path)
    task.check_options(NO_OPTIONS)
    changed: dict[str, Any] = {name: False}
    with pytest.raises(InvalidField, match=f"{name} belongs to embeddings") as caught:
        task.check_options(replace(NO_OPTIONS, **changed))
    assert caught.value.param == name


def test_a_pair_is_refused(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(InvalidField, match="single texts, no pairs"):
        task_of(folder, tmp_path).prepare([("a", "b")], False)


def test_an_answer_is_shown_with_its_best_label() -> None:
    rows = np.array([[0.5, 0.25, 0.25]], np.float32)
    outcome = Outcome(rows, ("x", "y", "z"), 3, Timings(0, 0, 0, 0, 0))
    assert TASK.show is not None
    assert TASK.show(outcome, 0) == {
        "label": "x",
        "score": 0.5,
        "scores": {"x": 0.5, "y": 0.25, "z": 0.25},
    }
