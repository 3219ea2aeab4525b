"""How many threads torch's kernels use."""

from __future__ import annotations

import threading

import torch


class ThreadCount:
    """Applies a number of threads in the thread that runs the kernels.

    OpenMP keeps the number per calling thread. Setting it also empties oneDNN's cache of prepared
    kernels, so it must happen only when it changes.

    Attributes:
        wanted: Intra-op threads.
    """

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self._applied: tuple[int, int] | None = None

    def apply(self) -> None:
        """Let the kernels that this thread will call use as many threads as wanted."""
        if self._applied != (now := (threading.get_ident(), self.wanted)):
            torch.set_num_threads(self.wanted)
            self._applied = now
