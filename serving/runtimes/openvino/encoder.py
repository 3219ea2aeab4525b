"""Run a compiled graph as an encoder engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openvino
from numpy.typing import NDArray

from serving.heads import pool
from serving.runtimes.process_footprint import measure_process
from serving.seams import Arrays, DeviceName, Footprint, Head


class OpenvinoEncoder:
    """A compiled graph and a head.

    Args:
        model: Takes int64 (rows, tokens) by the names of a batch; gives float32 last hidden states
            or logits.
        head: What becomes of its output.
        weights_bytes: Size of its constants.
    """

    def __init__(self, model: openvino.CompiledModel, head: Head, weights_bytes: int) -> None:
        # One request, used again and again: each has activations of its own.
        self._request = model.create_infer_request()
        self._head = head
        self._weights_bytes = weights_bytes

    @property
    def device(self) -> DeviceName:
        return "cpu"

    def use_cores(self, cores: Sequence[int]) -> None:
        """Keep every thread.

        Their number is compiled in, and a graph for each would pack its weights again. oneTBB's
        threads take work from each other instead of meeting at barriers, so that beside busy
        replicas they lose nothing but time (decision 23).
        """

    def forward(self, inputs: Arrays) -> NDArray[np.float32]:
        outputs = self._request.infer(dict(inputs), share_inputs=True, share_outputs=True)
        rows = pool(self._head, outputs[0], inputs["attention_mask"])
        # What the graph gave is overwritten by the next call; pooling may return a view of it.
        return rows.copy() if np.shares_memory(rows, outputs[0]) else rows

    def footprint(self) -> Footprint:
        return measure_process(self._weights_bytes)
