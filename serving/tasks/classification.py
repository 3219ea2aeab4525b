"""Classification: a probability per label for each text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from serving.errors import InvalidField
from serving.seams import Checkpoint
from serving.tasks.text_encoder import Encode, load_model_config, load_text_encoder


@dataclass(frozen=True, slots=True)
class ClassificationHead:
    """Takes the logits of a sequence classifier."""

    auto_class: str = "AutoModelForSequenceClassification"

    def rows(self, model_output: Any, attention_mask: Any) -> torch.Tensor:
        """Logits, float32 (rows, labels)."""
        logits: torch.Tensor = model_output.logits
        return logits.float()


@dataclass(frozen=True, slots=True)
class Classification:
    """The task ``classification`` for one checkpoint."""

    head: ClassificationHead
    encode: Encode
    max_tokens: int
    labels: tuple[str, ...]
    independent: bool
    """Whether each label has a probability of its own (multi-label), or all sum to 1."""

    @property
    def width(self) -> int:
        """Number of labels."""
        return len(self.labels)

    def check_dimensions(self, dimensions: int | None) -> None:
        """Raise ``InvalidField`` if ``dimensions`` is given; it belongs to embeddings."""
        if dimensions is not None:
            raise InvalidField("dimensions belongs to embeddings", param="dimensions")

    def decode(self, rows: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
        """Turn logits (texts, labels) into probabilities, computed in float64."""
        logits = rows.astype(np.float64)
        probabilities: NDArray[np.float64]
        if self.independent:
            probabilities = np.exp(-np.logaddexp(0, -logits))
        else:
            exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
            probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        return probabilities.astype(np.float32)


def load(checkpoint: Checkpoint, max_tokens: int | None) -> Classification:
    """Load the task for a checkpoint; labels and kind come from its config."""
    config = load_model_config(checkpoint)
    labels = tuple(config.id2label[index] for index in range(config.num_labels))
    text_encoder = load_text_encoder(checkpoint, max_tokens)
    return Classification(
        head=ClassificationHead(),
        encode=text_encoder.encode,
        max_tokens=text_encoder.max_tokens,
        labels=labels,
        # A single label can only have a probability of its own.
        independent=(config.problem_type == "multi_label_classification" or config.num_labels == 1),
    )
