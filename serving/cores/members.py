"""Who shares the cores of a node, and who of them has work: a table in shared memory."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Sequence
from pathlib import Path

from serving.cores.byte_locks import ByteLocks

MAX_MEMBERS = 256
MEMBER_BYTES = 1_024
"""Where the bytes begin that say, by being locked, that a member is alive."""

WORK_AT_HAND = 2**62
"""Later than any time."""

LINGER_NS = 100_000_000
"""How long a member that has no more work still counts as active.

Between two requests of a client lie a few milliseconds, and who changes the size of its team of
threads for each of them gains nothing and pays for it.
"""

_ACTIVE_UNTIL, _WAITS, _EXCLUSIVE, _FIELDS = 0, 1, 2, 3


class Members:
    """This process's row in the table, and a view of the others.

    A row has one writer, its owner. A row whose owner was killed is told by its lock.

    Args:
        folder: Of the node, shared by all.
        locks: This process's.

    Raises:
        OSError: The table cannot be made, or is full.
    """

    def __init__(self, folder: Path, locks: ByteLocks) -> None:
        self._locks = locks
        size = MAX_MEMBERS * _FIELDS * 8
        fd = os.open(folder / "members", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, size)
            self._memory = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        self._table = memoryview(self._memory).cast("q")
        self.row = self._register()

    def note_work(self) -> None:
        """From now on this member has work that somebody waits for."""
        self._table[self.row * _FIELDS + _ACTIVE_UNTIL] = WORK_AT_HAND

    def note_no_work(self) -> None:
        """It has none any more."""
        at = self.row * _FIELDS + _ACTIVE_UNTIL
        if self._table[at] == WORK_AT_HAND:
            self._table[at] = time.monotonic_ns() + LINGER_NS

    def note_waiting(self, within_s: float) -> None:
        """This member waits for a core, for work that somebody waits for.

        Args:
            within_s: Seconds after which it does so no more; one that is stopped meanwhile says
                nothing. 0 if it does not.
        """
        until = time.monotonic_ns() + int(within_s * 1e9) if within_s else 0
        self._table[self.row * _FIELDS + _WAITS] = until

    def others_wait(self) -> bool:
        """Whether another member does."""
        waiting = self._table[_WAITS::_FIELDS].tolist()
        if not any(waiting):
            return False
        now = time.monotonic_ns()
        return any(
            until > now and row != self.row and self._is_alive(row)
            for row, until in enumerate(waiting)
        )

    def active(self) -> Sequence[int]:
        """Rows of all members that have work that somebody waits for, or had just now."""
        now = time.monotonic_ns()
        until = self._table[_ACTIVE_UNTIL::_FIELDS].tolist()
        return [row for row, time_ns in enumerate(until) if time_ns > now and self._is_alive(row)]

    def note_exclusive(self, count: int) -> None:
        """This member has so many cores for itself, or is about to."""
        self._table[self.row * _FIELDS + _EXCLUSIVE] = count

    def exclusive_cores(self) -> int:
        """Cores that members have for themselves, this one's included."""
        counts = self._table[_EXCLUSIVE::_FIELDS].tolist()
        return sum(count for row, count in enumerate(counts) if count and self._is_alive(row))

    def others_are_active(self) -> bool:
        """Whether another member is."""
        return any(row != self.row for row in self.active())

    def close(self) -> None:
        """Leave the table."""
        for field in range(_FIELDS):
            self._table[self.row * _FIELDS + field] = 0
        self._locks.unlock(MEMBER_BYTES + self.row)
        self._table.release()
        self._memory.close()

    def _register(self) -> int:
        for row in range(MAX_MEMBERS):
            if self._locks.try_lock(MEMBER_BYTES + row):
                for field in range(_FIELDS):
                    self._table[row * _FIELDS + field] = 0
                return row
        raise OSError(f"more than {MAX_MEMBERS} replicas share the cores of this node")

    def _is_alive(self, row: int) -> bool:
        return row == self.row or self._locks.is_held_elsewhere(MEMBER_BYTES + row)
