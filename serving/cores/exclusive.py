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

CLAIM_S = 60.0
CLAIM_AGAIN_S = 0.2


class ExclusiveCores:
    """Takes cores once, binds this process to them, and keeps them; see ``CoreTurn``.

    Args:
        count: How many.
        cores: Numbers of the node's cores.
        folder: Shared by all of its replicas.

    Raises:
        OSError: The folder cannot be used, or for ``CLAIM_S`` other exclusive replicas have had too
            many of the cores, or another replica has not given its own back.
    """

    def __init__(self, count: int, cores: Sequence[int], folder: Path) -> None:
        self._locks = ByteLocks(folder / "locks")
        self._members = Members(folder, self._locks)
        try:
            places = self._claim(count, len(cores))
        except OSError:
            self.close()
            raise
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

    def _claim(self, count: int, num_cores: int) -> list[int]:
        """Take cores that are nobody's own, once there are so many.

        Who is replaced keeps its own until it has answered what is under way.
        """
        until = time.monotonic() + CLAIM_S
        while True:
            with self._locks.in_line(QUEUE_BYTE, max(0, until - time.monotonic())) as is_first:
                taken = self._members.exclusive_cores()
                if is_first and count <= num_cores - taken:
                    self._members.note_exclusive(count)
                    return self._take(count, num_cores, until)
            if time.monotonic() >= until:
                raise OSError(
                    f"{count} exclusive cores were asked for; {taken} of {num_cores} are exclusive "
                    "to other replicas"
                )
            time.sleep(CLAIM_AGAIN_S)

    def _take(self, count: int, num_cores: int, until: float) -> list[int]:
        """Wait until each of so many cores has been free for a moment, before all who queue."""
        held: list[int] = []
        while len(held) < count:
            for place in range(num_cores):
                free = len(held) < count and place not in held
                if free and self._locks.try_lock(place):
                    held.append(place)
            if time.monotonic() >= until and len(held) < count:
                raise OSError(f"{len(held)} of {count} cores were given back within {CLAIM_S:g} s")
            time.sleep(LOOK_AGAIN_S)
        return held


def _bind(cores: Sequence[int]) -> None:
    """Let every thread of this process, and those that they will start, run on these cores only."""
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cores)
