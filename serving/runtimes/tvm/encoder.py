"""Run a compiled graph as an encoder engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serving.heads import pool
from serving.runtimes.process_footprint import measure_process
from serving.runtimes.tvm.graph_files import EIGHT, IDS, POSITIONS, TYPES, LibraryFacts
from serving.runtimes.tvm.library import CompiledGraph
from serving.seams import Arrays, DeviceName, Footprint, Head, Logits

NOT_SEEN = -1e9
"""Is added to the products with padding: its share is zero then."""


class TvmEncoder:
    """A compiled graph and a head, run on the CPU.

    A row's numbers are the same bits in any company: its sums are taken in the same order, whatever
    stands beside it, and padding's share of attention is zero.

    Args:
        graph: What ``preparing`` compiled.
        facts: Of the graph.
        head: What becomes of its output.
    """

    device: DeviceName = "cpu"

    def __init__(self, graph: CompiledGraph, facts: LibraryFacts, head: Head) -> None:
        self._graph, self._facts, self._head = graph, facts, head

    def use_cores(self, cores: Sequence[int]) -> None:
        self._graph.use_cores(cores)

    def forward(self, inputs: Arrays) -> NDArray[np.float32]:
        output = self._graph.run(graph_inputs(inputs, self._facts))
        rows, width = inputs["input_ids"].shape
        if isinstance(self._head, Logits):
            output = output.reshape(rows, -1)
        else:
            output = output.reshape(rows, -(-width // EIGHT) * EIGHT, -1)[:, :width]
        return pool(self._head, output, inputs["attention_mask"])

    def footprint(self) -> Footprint:
        return measure_process(self._facts.weights_bytes)


def graph_inputs(inputs: Arrays, facts: LibraryFacts) -> list[NDArray[np.generic]]:
    """What a graph takes for a batch, each (rows, eights, 8).

    Args:
        inputs: A task's arrays, each (rows, tokens).
        facts: Of the graph.

    Raises:
        ValueError: An id, a type or a position has no place in its table.
    """
    ids, seen = inputs["input_ids"], inputs["attention_mask"].astype(bool)
    if facts.padding_id is None:
        positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    else:
        counted = (ids != facts.padding_id) & seen
        positions = np.cumsum(counted, axis=1) * counted + facts.padding_id
    found = {
        IDS: ids,
        TYPES: inputs.get("token_type_ids", np.zeros_like(ids)),
        POSITIONS: positions,
    }
    arrays: list[NDArray[np.generic]] = []
    for name, num_entries in facts.entries.items():
        values = np.where(seen, found[name], 0)
        # Compiled code does not look: it would read beyond the table.
        if values.min() < 0 or values.max() >= num_entries:
            raise ValueError(
                f"{name} from {values.min()} to {values.max()} for a table of {num_entries}"
            )
        arrays.append(_by_eights(values.astype(np.int32), 0))
    mask = np.where(seen, 0, NOT_SEEN).astype(np.float32)
    return [*arrays, _by_eights(mask, NOT_SEEN)]


def _by_eights(values: NDArray[np.generic], filling: float) -> NDArray[np.generic]:
    rows, width = values.shape
    padded = np.pad(values, ((0, 0), (0, -width % EIGHT)), constant_values=filling)
    return padded.reshape(rows, -1, EIGHT)
