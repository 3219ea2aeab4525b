"""Run a graph as an encoder engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serving.heads import pool
from serving.machine.kernel_threads import KernelThreads
from serving.runtimes.litert.graph_files import IDS, POSITIONS, TYPES, GraphFacts
from serving.runtimes.litert.interpreters import RowInterpreter
from serving.runtimes.process_footprint import measure_process
from serving.seams import Arrays, DeviceName, Footprint, Head, Logits, PerToken


class LiteRtEncoder:
    """A graph and a head, run on the CPU.

    Rows are run one by one, each at its own length and without padding. So an answer is the same
    bits in any company, and no token of padding costs anything.

    Args:
        interpreter: Of a graph that ``preparing`` wrote.
        threads: The interpreter's.
        facts: Of the graph.
        head: What becomes of its output.
    """

    device: DeviceName = "cpu"

    def __init__(
        self, interpreter: RowInterpreter, threads: KernelThreads, facts: GraphFacts, head: Head
    ) -> None:
        self._interpreter, self._threads = interpreter, threads
        self._facts, self._head = facts, head

    def use_cores(self, cores: Sequence[int]) -> None:
        self._threads.run_on(cores)

    def forward(self, inputs: Arrays) -> NDArray[np.float32]:
        rows = [self._forward_row(inputs, index) for index in range(len(inputs["input_ids"]))]
        if not isinstance(self._head, PerToken):
            return np.concatenate(rows)
        width = inputs["input_ids"].shape[1]
        return np.stack([np.pad(row[0], ((0, width - row.shape[1]), (0, 0))) for row in rows])

    def _forward_row(self, inputs: Arrays, index: int) -> NDArray[np.float32]:
        mask = inputs["attention_mask"][index : index + 1]
        mask = mask[:, : int(mask.sum())]
        length = mask.shape[1]
        row = graph_inputs(
            {name: array[index, :length] for name, array in inputs.items()},
            self._interpreter.inputs,
            self._facts.padding_id,
        )
        output = self._interpreter.run(row)
        # Logits are (1, labels) already, hidden states (tokens, width).
        return pool(self._head, output if isinstance(self._head, Logits) else output[None], mask)

    def footprint(self) -> Footprint:
        return measure_process(self._facts.weights_bytes)


def graph_inputs(
    row: Arrays, names: frozenset[str], padding_id: int | None
) -> dict[str, NDArray[np.int32]]:
    """What a graph takes for one row without padding.

    Args:
        row: A task's arrays, each (tokens,).
        names: Of the graph's inputs.
        padding_id: As of ``GraphFacts``.
    """
    ids = row["input_ids"]
    if padding_id is None:
        positions = np.arange(len(ids))
    else:
        counted = ids != padding_id
        positions = np.cumsum(counted) * counted + padding_id
    found = {IDS: ids, POSITIONS: positions}
    if TYPES in names:
        found[TYPES] = row.get("token_type_ids", np.zeros_like(ids))
    return {name: values.astype(np.int32) for name, values in found.items()}
