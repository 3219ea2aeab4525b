"""Whose CPU time a request takes, from the kernel's own books (Linux)."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.integration.running_service import RunningService

PARTIES = ("client", "HAProxy", "gateway", "event loop", "kernels", "Ray", "elsewhere")
"""``event loop`` and ``kernels`` are threads of the replica; ``Ray`` is all else of the service;
``elsewhere`` is the rest of the machine, and what a hypervisor took away."""

IDLE_S = 0.5


@dataclass(frozen=True, slots=True)
class Reading:
    """Seconds since each thread, or the machine, started.

    Attributes:
        threads: By thread: on a core, and ready to run without one.
        machine: All cores busy, with the time that a hypervisor took away.
    """

    threads: dict[Path, tuple[float, float]]
    machine: float


class CpuAccount:
    """The threads of a service and of this process, its client, each assigned to a party.

    Make it while nothing is asked of the service: what a thread waits for then tells its role.
    """

    def __init__(self, service: RunningService, model: str, variant: str) -> None:
        time.sleep(IDLE_S)
        replicas = {process.pid for process in service.replica_processes(model, variant)}
        self._parties: dict[Path, str] = {}
        for process in [psutil.Process(), *service.descendants()]:
            with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
                self._parties |= {
                    thread: _replica_party(thread)
                    if process.pid in replicas
                    else _process_party(process)
                    for thread in Path(f"/proc/{process.pid}/task").iterdir()
                }

    def read(self) -> Reading:
        """Read every thread's time."""
        threads = {}
        for thread in self._parties:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                on_core, waiting, _ = (thread / "schedstat").read_text().split()
                threads[thread] = (int(on_core) / 1e9, int(waiting) / 1e9)
        return Reading(threads, _machine_seconds())

    def spent(self, before: Reading, after: Reading) -> dict[str, tuple[float, float]]:
        """Seconds between two readings on a core, and waiting for one, by party."""
        spent = dict.fromkeys(PARTIES, (0.0, 0.0))
        for thread in before.threads.keys() & after.threads.keys():
            on_core, waiting = spent[party := self._parties[thread]]
            early, late = before.threads[thread], after.threads[thread]
            spent[party] = (on_core + late[0] - early[0], waiting + late[1] - early[1])
        ours = sum(on_core for on_core, _ in spent.values())
        spent["elsewhere"] = (after.machine - before.machine - ours, 0.0)
        return spent


def _process_party(process: psutil.Process) -> str:
    if process.pid == os.getpid():
        return "client"
    if process.name() == "haproxy":
        return "HAProxy"
    return "gateway" if "ServeReplica:gateway:" in " ".join(process.cmdline()) else "Ray"


def _replica_party(thread: Path) -> str:
    """Ray's own threads have names of their own; the rest wait for sockets, or for work."""
    is_python = (thread / "comm").read_text().startswith("ray::")
    if not is_python or thread.name == thread.parent.parent.name:
        return "Ray"
    return "event loop" if "poll" in (thread / "wchan").read_text() else "kernels"


def _machine_seconds() -> float:
    times = psutil.cpu_times()
    busy = times.user + times.nice + times.system + times.irq + times.softirq + times.steal
    return float(busy)
