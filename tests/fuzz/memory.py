"""What the processes of a service hold, before and after."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping

import psutil

TOLERANCE = 0.10
"""Of growth in all processes together: kernels for sizes of batches that were not met before, and
what allocators keep of the largest bodies. Twenty thousand requests that each lost 64 KiB would be
1.2 GiB, more than twice as much."""

SETTLING_S = 60
POLL_S = 2


def resident_bytes(service: psutil.Process) -> int:
    """Resident memory of a process and all below it."""
    total = 0
    for process in [service, *service.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


def open_files(service: psutil.Process) -> int:
    """Open files and connections of a process and all below it."""
    total = 0
    for process in [service, *service.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += process.num_fds()
    return total


def settled(measure: Callable[[], int], most: float) -> int:
    """The measure once it is at most ``most``, or after the time that settling may take."""
    deadline = time.monotonic() + SETTLING_S
    while (found := measure()) > most and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return found


def replicas(service: psutil.Process) -> Mapping[int, str]:
    """Titles by process id, which Ray changes while a method runs."""
    found: dict[int, str] = {}
    for process in service.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            title = " ".join(process.cmdline())
            if title.startswith("ray::ServeReplica"):
                found[process.pid] = title
    return found
