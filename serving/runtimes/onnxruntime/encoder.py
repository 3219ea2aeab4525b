"""Run a graph as an encoder engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession

from serving.heads import pool
from serving.machine.kernel_threads import KernelThreads
from serving.runtimes.onnxruntime.graph_files import OUTPUT, WEIGHTS_BYTES
from serving.runtimes.process_footprint import measure_process
from serving.seams import Arrays, DeviceName, Footprint, Head


class OnnxEncoder:
    """A session and a head, run on the CPU.

    Args:
        session: Of a graph that ``preparing`` wrote.
        threads: The session's.
        head: What becomes of its output.
    """

    device: DeviceName = "cpu"

    def __init__(self, session: InferenceSession, threads: KernelThreads, head: Head) -> None:
        self._session, self._threads, self._head = session, threads, head
        self._weights_bytes = int(session.get_modelmeta().custom_metadata_map[WEIGHTS_BYTES])

    def use_cores(self, cores: Sequence[int]) -> None:
        self._threads.run_on(cores)

    def forward(self, inputs: Arrays) -> NDArray[np.float32]:
        (output,) = self._session.run([OUTPUT], dict(inputs))
        return pool(self._head, output, inputs["attention_mask"])

    def footprint(self) -> Footprint:
        return measure_process(self._weights_bytes)
