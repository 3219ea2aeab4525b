"""Interpreters of LiteRT, as every part of this runtime wants them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from serving.errors import MayPass


class RowInterpreter:
    """Runs a graph for one row of tokens after the other; each may have another length.

    What LiteRT delegates to XNNPACK keeps its packed weights when a length changes, and plans its
    memory anew: a tenth of a millisecond.

    Args:
        file: The graph; its constants are mapped.
        threads: Of the kernels.

    Raises:
        MayPass: LiteRT cannot open it; its bytes were right when they were compared.
    """

    def __init__(self, file: Path, threads: int) -> None:
        try:
            self._interpreter = Interpreter(str(file), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise MayPass(f"{file}: LiteRT cannot open it: {error}") from error
        (signature,) = self._interpreter._get_full_signature_list().values()
        self._inputs: dict[str, int] = signature["inputs"]
        (self._output,) = signature["outputs"].values()
        self._length: int | None = 1

    @property
    def inputs(self) -> frozenset[str]:
        """Names of the graph's inputs."""
        return frozenset(self._inputs)

    def run(self, row: dict[str, NDArray[np.int32]]) -> NDArray[np.float32]:
        """Return the graph's output for inputs (tokens,) of one length.

        Raises:
            ValueError: An id has no place in its table.
        """
        (length,) = {len(values) for values in row.values()}
        if length != self._length:
            # Should it fail half-way, the inputs are of neither length.
            self._length = None
            for index in self._inputs.values():
                self._interpreter.resize_tensor_input(index, [length])
            self._interpreter.allocate_tensors()
            self._length = length
        for name, values in row.items():
            self._interpreter.set_tensor(self._inputs[name], values)
        self._interpreter.invoke()
        output: NDArray[np.float32] = self._interpreter.get_tensor(self._output)
        return output
