"""How busy the machine's cores are with other processes (as far as the kernel tells)."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class CpuUse:
    """Seconds since the machine, or this process, started.

    Attributes:
        at: When, by ``time.monotonic``.
        machine: All cores together, whatever was worked on.
        own: This process's share.
    """

    at: float
    machine: float
    own: float


def read_cpu_use() -> CpuUse:
    """Read the kernel's books."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    own = psutil.Process().cpu_times()
    return CpuUse(time.monotonic(), sum(times[:8]) - idle, own.user + own.system)


def cores_of_others(before: CpuUse, after: CpuUse) -> float:
    """Cores that other processes kept busy between two readings, on average."""
    busy = (after.machine - before.machine) - (after.own - before.own)
    return max(busy, 0.0) / max(after.at - before.at, 1e-9)
