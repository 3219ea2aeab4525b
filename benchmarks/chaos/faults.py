"""What is done to a running service: each fault begins, and ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from benchmarks.chaos import memory

FILLER = "filler"
"""A file on the small disk."""


@dataclass(frozen=True, slots=True)
class Victim:
    """A running service, as faults see it.

    Attributes:
        process: Of ``quantserve serve``.
        conduct: File that tells the obedient variant what to do.
        disk: A small disk with its artifacts and evidence; None if none could be mounted.
    """

    process: psutil.Process
    conduct: Path
    disk: Path | None


class Fault(Protocol):
    """Something that goes wrong."""

    def begin(self, victim: Victim) -> None:
        """Do it."""

    def end(self, victim: Victim) -> None:
        """Undo it, as far as it can be."""


def find(victim: Victim, title: str) -> list[psutil.Process]:
    """The service's processes whose command line holds ``title``."""
    found = []
    for process in victim.process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if title in " ".join(process.cmdline()):
                found.append(process)
    return found


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL.

    Attributes:
        title: In the command line of whom.
        most: So many of them.
    """

    title: str
    most: int | None = None

    def begin(self, victim: Victim) -> None:
        """Kill those of that title.

        Raises:
            RuntimeError: There is none.
        """
        _signal(find(victim, self.title)[: self.most], self.title, signal.SIGKILL)

    def end(self, victim: Victim) -> None:
        """Whoever was killed is to be replaced by the service."""


@dataclass(frozen=True, slots=True)
class EndedByOperator:
    """No fault, but what an operator does in the end: whoever it is starts anew.

    Attributes:
        title: In the command line of whom.
    """

    title: str

    def begin(self, victim: Victim) -> None:
        """Nothing is done yet."""

    def end(self, victim: Victim) -> None:
        """End all of that title."""
        for process in find(victim, self.title):
            process.kill()


@dataclass(frozen=True, slots=True)
class Freeze:
    """SIGSTOP, and SIGCONT in the end.

    Attributes:
        title: In the command line of whom.
    """

    title: str

    def begin(self, victim: Victim) -> None:
        """Freeze all of that title.

        Raises:
            RuntimeError: There is none.
        """
        _signal(find(victim, self.title), self.title, signal.SIGSTOP)

    def end(self, victim: Victim) -> None:
        """Let them go on, unless they have been replaced."""
        for process in find(victim, self.title):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


def _signal(processes: list[psutil.Process], title: str, signum: signal.Signals) -> None:
    if not processes:
        raise RuntimeError(f"the service has no process {title!r}")
    for process in processes:
        process.send_signal(signum)


class FillDisk:
    """Leaves no byte of the small disk free, and frees all of it in the end."""

    def begin(self, victim: Victim) -> None:
        """Fill it.

        Raises:
            RuntimeError: There is no such disk.
        """
        if victim.disk is None:
            raise RuntimeError("no disk could be mounted; run it as root")
        with (victim.disk / FILLER).open("wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(victim.disk).free)
            file.seek(0, os.SEEK_END)
            with contextlib.suppress(OSError):
                while file.write(bytes(4096)):
                    pass

    def end(self, victim: Victim) -> None:
        """Free it."""
        if victim.disk is not None:
            (victim.disk / FILLER).unlink(missing_ok=True)


class TakeMemory:
    """Takes the machine's memory but for what ``memory.LEFT_BYTES`` says, and gives it back."""

    def __init__(self) -> None:
        self._holder: subprocess.Popen[str] | None = None

    def begin(self, victim: Victim) -> None:
        """Return once it is taken."""
        self._holder = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.chaos.memory"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if not self._holder.stdout.readline().startswith(memory.FULL):
            raise RuntimeError("no memory could be taken")

    def end(self, victim: Victim) -> None:
        """Give it back."""
        if self._holder is not None:
            self._holder.kill()
            self._holder.communicate()


@dataclass(frozen=True, slots=True)
class Misbehave:
    """Tells the obedient variant what to do.

    Attributes:
        conduct: A word that ``site/quantserve_obedient.py`` knows.
    """

    conduct: str

    def begin(self, victim: Victim) -> None:
        """Tell it."""
        victim.conduct.write_text(self.conduct)

    def end(self, victim: Victim) -> None:
        """Tell it to behave."""
        victim.conduct.write_text("")


@dataclass(frozen=True, slots=True)
class Together:
    """Several faults, one after the other.

    Attributes:
        faults: In their order.
    """

    faults: tuple[Fault, ...]

    def begin(self, victim: Victim) -> None:
        """Begin all of them."""
        for fault in self.faults:
            fault.begin(victim)

    def end(self, victim: Victim) -> None:
        """End all of them, the last one first."""
        for fault in reversed(self.faults):
            fault.end(victim)
