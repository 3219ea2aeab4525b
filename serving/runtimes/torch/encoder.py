"""Run a transformers model as an encoder engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from serving.machine.process_memory import keep_freed_memory, release_freed_memory
from serving.runtimes.torch import footprint
from serving.runtimes.torch.model_inputs import as_tensors
from serving.runtimes.torch.pooling import pool
from serving.runtimes.torch.thread_count import ThreadCount
from serving.seams import Arrays, DeviceName, Footprint, Head


class TorchEncoder:
    """A transformers model and a head, run eagerly on one device.

    Args:
        model: The converted model, already on ``device``.
        head: What becomes of its output.
        device: Where it is.
        threads: Intra-op threads of a forward pass, until told otherwise.
    """

    def __init__(self, model: nn.Module, head: Head, device: DeviceName, threads: int) -> None:
        release_freed_memory()
        keep_freed_memory()
        self._model, self._head = model, head
        self._device, self._threads = device, ThreadCount(threads)
        self._weights_bytes = footprint.weights_bytes(model)

    @property
    def device(self) -> DeviceName:
        return self._device

    def use_cores(self, cores: Sequence[int]) -> None:
        self._threads.wanted = len(cores)

    def forward(self, inputs: Arrays) -> NDArray[np.float32]:
        self._threads.apply()
        with torch.inference_mode():
            tensors = as_tensors(inputs, self._device)
            output = self._model(**tensors)
            pooled = pool(self._head, output, tensors["attention_mask"])
            rows: NDArray[np.float32] = pooled.cpu().numpy()
        return rows

    def footprint(self) -> Footprint:
        return footprint.measure(self._weights_bytes, self._device)
