"""Load a transformers checkpoint and run it as an encoder engine."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from serving.machine.process_memory import keep_freed_memory, release_freed_memory
from serving.runtimes.torch import footprint
from serving.seams import DeviceName, EncoderHead, Footprint, LoadRequest, TokenBatch


class TorchEncoder:
    """A transformers model and a task's head, run eagerly on one device.

    Args:
        model: The converted model, already on the device of ``request``.
        request: What was asked for; gives head, device and threads.
    """

    def __init__(self, model: nn.Module, request: LoadRequest) -> None:
        release_freed_memory()
        keep_freed_memory()
        self.model = model
        self.head: EncoderHead = request.head
        self.threads = request.threads
        self._device = request.device
        self._thread: int | None = None

    @property
    def device(self) -> DeviceName:
        return self._device

    def forward(self, batch: TokenBatch) -> NDArray[np.float32]:
        self._use_threads()
        with torch.inference_mode():
            ids = torch.from_numpy(batch.input_ids).to(self._device)
            mask = torch.from_numpy(batch.attention_mask).to(self._device)
            output = self.model(input_ids=ids, attention_mask=mask)
            rows: NDArray[np.float32] = self.head.rows(output, mask).float().cpu().numpy()
        return rows

    def footprint(self) -> Footprint:
        return footprint.measure(self.model, self._device)

    def state_dict(self) -> Mapping[str, Any]:
        return self.model.state_dict()

    def _use_threads(self) -> None:
        # OpenMP keeps the number per calling thread. Setting it also empties oneDNN's cache of
        # prepared kernels, so it must not happen at every call.
        if self._thread != threading.get_ident():
            torch.set_num_threads(self.threads)
            self._thread = threading.get_ident()
