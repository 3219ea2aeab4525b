"""Cores that one replica has for itself as long as it lives."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from serving.cores.byte_locks import ByteLocks
from serving.cores.members import Members
from serving.cores.turn import QUEUE_BYTE

LOOK_AGAIN_S = 0.005


class ExclusiveCores:
    """Takes cores once, binds this process to them, and keeps them; see ``CoreTurn``.

    Args:
        count: How many.
        cores: Numbers of the node's cores.
        folder: Shared by all of its replicas.

    Raises:
        OSError: The folder cannot be used, or other exclusive replicas have too many of the cores.
    """

    def __init__(self, count: int, cores: Sequence[int], folder: Path) -> None:
        self._locks = ByteLocks(folder / "locks")
        self._members = Members(folder, self._locks)
        taken = self._members.exclusive_cores()
        if count > len(cores) - taken:
            self.close()
            raise OSError(
                f"{count} exclusive cores were asked for; {taken} of {len(cores)} are exclusive to "
                "other replicas already"
            )
        self._members.note_exclusive(count)
        places = self._take(count, len(cores))
        self._cores = tuple(cores[place] for place in places)
        _bind(self._cores)

    def take(self, background: bool = False) -> tuple[int, ...]:
        """Return them at once."""
        return self._cores

    def hurry(self) -> None:
        """Do nothing: nobody waits."""

    def give_back(self) -> None:
        """Keep them."""

    def limit(self, most: int) -> None:
        """Keep them: the configuration says how many."""

    def others_are_active(self) -> bool:
        """Nobody else has these cores."""
        return False

    def close(self) -> None:
        """Leave them to the others."""
        self._members.close()
        self._locks.close()

    def _take(self, count: int, num_cores: int) -> list[int]:
        """Wait until each of so many cores has been free for a moment, before all who queue."""
        held: list[int] = []
        self._locks.lock(QUEUE_BYTE)
        try:
            while True:
                for place in range(num_cores):
                    free = len(held) < count and place not in held
                    if free and self._locks.try_lock(place):
                        held.append(place)
                if len(held) == count:
                    return held
                time.sleep(LOOK_AGAIN_S)
        finally:
            self._locks.unlock(QUEUE_BYTE)


def _bind(cores: Sequence[int]) -> None:
    """Let every thread of this process, and those that they will start, run on these cores only."""
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cores)
