"""Encoders: engines that answer each text with one row of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from serving.seams.footprint import DeviceName, Footprint


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Right-padded token ids of several texts.

    Attributes:
        input_ids: int64, (rows, tokens).
        attention_mask: int64, (rows, tokens); 1 for a token, 0 for padding.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]


class EncoderEngine(Protocol):
    """Executes one model in one variant, for tasks that answer each text with one row of numbers.

    Not thread-safe: callers run one ``forward`` at a time.
    """

    @property
    def device(self) -> DeviceName:
        """Where the weights are."""

    def forward(self, batch: TokenBatch) -> NDArray[np.float32]:
        """Return float32 (rows, width): the row of numbers that the task decodes for each text."""

    def footprint(self) -> Footprint:
        """Measure what the engine occupies now."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the tensors of this variant, as they would be saved to disk."""


class EncoderHead(Protocol):
    """The part of a task that runs inside a torch engine, between the model and its output row."""

    auto_class: str
    """Name of the transformers Auto class that builds the model, e.g. ``AutoModel``."""

    def rows(self, model_output: Any, attention_mask: Any) -> Any:
        """Reduce a model's output to a float tensor (rows, width).

        Args:
            model_output: What the transformers model returned.
            attention_mask: int64 tensor (rows, tokens), 1 for a token.
        """
