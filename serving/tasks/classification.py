"""Classification: a score per label for each text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.checkpoint import read_config
from serving.heads import activate
from serving.seams import (
    NO_OPTIONS,
    Activation,
    AnswerOptions,
    Arrays,
    Checkpoint,
    EncoderJudging,
    Input,
    Item,
    Logits,
    Outcome,
    Task,
    Tensors,
    TensorSpec,
)
from serving.tasks.classifier_config import label_names, require_classifier
from serving.tasks.task_files import open_text_items, read_settings, write_task
from serving.tasks.text_items import TextItems, TextSettings, only_texts, refuse_options

_LISTED_CHARACTERS = 100
"""Most of a checkpoint's labels that a message lists."""


class ClassificationSettings(TextSettings):
    """What preparing writes.

    Attributes:
        head: What makes scores of logits.
        labels: Name of each logit, no two alike.
    """

    head: Logits
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Classification:
    """The task ``classification`` for one checkpoint; see ``EncoderTask``."""

    head: Logits
    items: TextItems
    labels: tuple[str, ...]

    @property
    def max_tokens(self) -> int:
        """Most tokens of a text."""
        return self.items.max_tokens

    @property
    def width(self) -> int:
        """Number of labels."""
        return len(self.labels)

    def prepare(
        self, inputs: Sequence[Input], truncate: bool, options: AnswerOptions = NO_OPTIONS
    ) -> list[Item]:
        """Make an item of each text."""
        return self.items.encode(only_texts(inputs), truncate)

    def collate(self, items: Sequence[Item]) -> Arrays:
        """Make one batch."""
        return self.items.collate(items)

    def check_options(self, options: AnswerOptions) -> None:
        """Raise ``InvalidField`` if there are any: they belong to embeddings."""
        refuse_options(options)

    def decode(
        self, rows: NDArray[np.float32], options: AnswerOptions = NO_OPTIONS
    ) -> NDArray[np.float32]:
        """Turn logits (texts, labels) into scores: probabilities, or a regression's values."""
        return activate(rows, self.head.activation)


def open_task(folder: Path, max_tokens: int | None) -> Classification:
    """Make the task from what ``prepare`` wrote; see ``Task.open``."""
    settings = read_settings(folder, ClassificationSettings)
    items = open_text_items(folder, settings, max_tokens)
    return Classification(settings.head, items, settings.labels)


def prepare(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the task's part of an artifact; labels and kind come from the checkpoint's config.

    Raises:
        ConfigError: The checkpoint is no classifier of texts, or its labels are not clear.
    """
    from serving.tasks.sentence_transformers_files import TransformerSettings
    from serving.tasks.text_preparing import load_classifier, prepare_texts

    model = load_classifier(checkpoint)
    labels = label_names(checkpoint, model.config.to_dict())
    assert labels is not None, "transformers' config has them all"
    settings = ClassificationSettings(
        **prepare_texts(model, TransformerSettings()).model_dump(),
        head=Logits(activation=_activation(model.config)),
        labels=labels,
    )
    write_task(folder, model.tokenizer.backend_tokenizer, settings)


def _activation(config: Any) -> Activation:
    if config.problem_type == "regression":
        return "identity"
    # A single label can only have a probability of its own.
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return "sigmoid"
    return "softmax"


def _check(checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
    require_classifier(checkpoint, config)
    label_names(checkpoint, config)


def _why_not_comparable(checkpoint: Checkpoint, reference: Checkpoint) -> str | None:
    labels, expected = (label_names(found, read_config(found)) for found in (checkpoint, reference))
    if labels is None or expected is None or labels == expected:
        return None
    return f"labels {_listed(labels)}; the reference has {_listed(expected)}"


def _listed(labels: Sequence[str]) -> str:
    return shorten(", ".join(labels), _LISTED_CHARACTERS, placeholder=f" … ({len(labels)})")


def _read_probes(path: Path | None) -> tuple[Input, ...]:
    from serving.quality.probes import TEXTS, read_text_probes

    return read_text_probes(path, TEXTS)


def _read_labelled(path: Path) -> Sequence[Any]:
    from serving.quality.dataset import read_examples

    return read_examples(path)


def _judging() -> EncoderJudging:
    from serving.quality.agreement import classification_judging

    return classification_judging()


def _show(outcome: Outcome, index: int) -> dict[str, Any]:
    row = outcome.rows[index]
    return {
        "label": outcome.labels[int(row.argmax())],
        "score": float(row.max()),
        "scores": dict(zip(outcome.labels, row.tolist(), strict=True)),
    }


def _to_inputs(texts: Mapping[str, Sequence[str]]) -> tuple[Input, ...]:
    return tuple(texts["text"])


def _to_outputs(outcome: Outcome) -> Mapping[str, Any]:
    return {
        "label": [outcome.labels[int(row.argmax())] for row in outcome.rows],
        "score": outcome.rows.max(axis=1),
        "scores": outcome.rows,
    }


TASK = Task(
    kind="encoder",
    prepare=prepare,
    open=open_task,
    read_probes=_read_probes,
    read_labelled=_read_labelled,
    floor=0.9,
    tolerance=0.02,
    judging=_judging,
    show=_show,
    tensors=Tensors(
        inputs=(TensorSpec("text", "BYTES", (-1,)),),
        outputs=(
            TensorSpec("label", "BYTES", (-1,)),
            TensorSpec("score", "FP32", (-1,)),
            TensorSpec("scores", "FP32", (-1, None)),
        ),
        to_inputs=_to_inputs,
        to_outputs=_to_outputs,
    ),
    check=_check,
    why_not_comparable=_why_not_comparable,
)
