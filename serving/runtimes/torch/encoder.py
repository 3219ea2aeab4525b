"""Run a transformers model as an encoder engine."""

from __future__ import annotations

import threading

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from serving.machine.process_memory import keep_freed_memory, release_freed_memory
from serving.runtimes.torch import footprint
from serving.runtimes.torch.model_inputs import as_tensors
from serving.runtimes.torch.pooling import pool
from serving.seams import Arrays, DeviceName, Footprint, Head


class TorchEncoder:
    """A transformers model and a head, run eagerly on one device.

    Args:
        model: The converted model, already on ``device``.
        head: What becomes of its output.
        device: Where it is.
        threads: Intra-op threads of a forward pass.
    """

    def __init__(self, model: nn.Module, head: Head, device: DeviceName, threads: int) -> None:
        release_freed_memory()
        keep_freed_memory()
        self._model, self._head = model, head
        self._device, self._threads = device, threads
        self._weights_bytes = footprint.weights_bytes(model)
        self._thread: int | None = None

    @property
    def device(self) -> DeviceName:
        return self._device

    def forward(self, inputs: Arrays) -> NDArray[np.float32]:
        self._use_threads()
        with torch.inference_mode():
            tensors = as_tensors(inputs, self._device)
            output = self._model(**tensors)
            pooled = pool(self._head, output, tensors["attention_mask"])
            rows: NDArray[np.float32] = pooled.cpu().numpy()
        return rows

    def footprint(self) -> Footprint:
        return footprint.measure(self._weights_bytes, self._device)

    def _use_threads(self) -> None:
        # OpenMP keeps the number per calling thread. Setting it also empties oneDNN's cache of
        # prepared kernels, so it must not happen at every call.
        if self._thread != threading.get_ident():
            torch.set_num_threads(self._threads)
            self._thread = threading.get_ident()
