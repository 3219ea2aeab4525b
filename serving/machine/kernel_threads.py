"""Threads of a runtime that has no way to change their number: they are told where to run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from serving.machine.cores import core_numbers

Made = TypeVar("Made")


class KernelThreads:
    """A pool's threads, which run on as many cores as they are given (Linux).

    Where there are fewer cores than threads they take turns on them, which costs a pool that
    hands out its work in small pieces a tenth of a pass.

    Args:
        ids: The kernel's numbers of the pool's threads; the caller of a pass belongs to them, too.
    """

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids = ids
        self._everywhere = core_numbers()
        self._cores: tuple[int, ...] = ()

    def run_on(self, cores: Sequence[int]) -> None:
        """Run on these cores from now on, the calling thread included."""
        enough = len(cores) > len(self._ids)
        wanted = tuple(self._everywhere if enough else cores)
        if wanted == self._cores or not hasattr(os, "sched_setaffinity"):
            return
        for thread in (*self._ids, threading.get_native_id()):
            os.sched_setaffinity(thread, wanted)
        self._cores = wanted


def threads_of(make: Callable[[], Made]) -> tuple[Made, KernelThreads]:
    """Make something, and find the threads that came into being with it."""
    before = _thread_ids()
    made = make()
    return made, KernelThreads(sorted(_thread_ids() - before))


def _thread_ids() -> set[int]:
    folder = Path("/proc/self/task")
    return {int(entry.name) for entry in folder.iterdir()} if folder.exists() else set()
