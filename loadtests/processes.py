"""CPU time of a service's processes where it runs on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SERVERS = ("haproxy", "raylet", "gcs_server")


@dataclass(frozen=True, slots=True)
class CpuReading:
    """CPU seconds since each process started, user and system, by its id.

    Attributes:
        replicas: The variant's replicas.
        service: All of Ray's and Serve's processes, the replicas included.
    """

    replicas: dict[int, float]
    service: dict[int, float]


def read_cpu(url: str, model: str, variant: str) -> CpuReading | None:
    """Read the CPU times; None if the server is elsewhere or is not quantserve."""
    if urlsplit(url).hostname not in LOOPBACK:
        return None
    title = f"ServeReplica:{model}--{variant}:"
    replicas, service = {}, {}
    for pid, command, seconds in _processes():
        service[pid] = seconds
        if title in command:
            replicas[pid] = seconds
    return CpuReading(replicas, service) if replicas else None


def cpu_between(before: CpuReading | None, after: CpuReading | None) -> tuple[float, float] | None:
    """CPU seconds of the replicas and of the whole service, of processes in both readings."""
    if before is None or after is None:
        return None
    return _between(before.replicas, after.replicas), _between(before.service, after.service)


def _between(before: dict[int, float], after: dict[int, float]) -> float:
    return sum(after[pid] - before[pid] for pid in before.keys() & after.keys())


def _processes() -> Iterator[tuple[int, str, float]]:
    """Id, command line and CPU seconds of each of Ray's and Serve's processes."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error), process.oneshot():
            # A worker names itself after its actor; the rest are most of a machine's processes.
            if (name := process.name()) in SERVERS or name.startswith("ray::"):
                times = process.cpu_times()
                yield process.pid, " ".join(process.cmdline()), float(times.user + times.system)
