"""Encoders: engines that answer each input with one row of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serving.seams.engine import DeviceName, Footprint

Arrays = Mapping[str, NDArray[np.int64]]
"""What a batch is for an engine: arrays by the names of the model's inputs. A text model has
``input_ids`` and ``attention_mask``, both (rows, tokens) and padded on the right, and some have
``token_type_ids``."""


class EncoderEngine(Protocol):
    """Executes one artifact, for tasks that answer each input with one row of numbers.

    Not thread-safe: callers run one ``forward`` at a time.
    """

    @property
    def device(self) -> DeviceName:
        """Where the weights are."""

    def use_cores(self, cores: Sequence[int]) -> None:
        """Run on these cores from now on, with a thread for each.

        Called before each pass, in its thread: what changes nothing must cost next to nothing.

        Args:
            cores: Their numbers, at least one and at most as many as it has threads.
        """

    def forward(self, inputs: Arrays) -> NDArray[np.float32]:
        """Return float32 (rows, width): what ``serving.heads.pool`` defines for the head."""

    def footprint(self) -> Footprint:
        """Measure what the process occupies now."""
