"""Locks on single bytes of a file, which the kernel releases when their holder dies (Linux)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

# struct flock of a 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = struct.Struct("hhqqi4x")
_EXCLUSIVE = {byte: _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0) for byte in range(2_048)}
_RELEASE = {byte: _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, byte, 1, 0) for byte in _EXCLUSIVE}


class ByteLocks:
    """Exclusive locks of one process on the bytes of a file.

    They are open file description locks, which belong to this object and not to the process: two
    objects exclude each other wherever they are. See ``fcntl(2)``.

    Args:
        file: Made if there is none.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def try_lock(self, byte: int) -> bool:
        """Lock a byte unless somebody else holds it; returns whether it is held now."""
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _EXCLUSIVE[byte])
        except (BlockingIOError, PermissionError):
            return False
        return True

    @contextlib.contextmanager
    def in_line(self, byte: int, patience_s: float) -> Iterator[bool]:
        """Lock a byte in the order of asking, and release it at the end.

        Args:
            byte: Nothing else of this object locks it.
            patience_s: Seconds to wait at most.

        Yields:
            Whether it is locked; else its holder has kept it for so long.
        """
        if self.try_lock(byte):
            try:
                yield True
            finally:
                self.unlock(byte)
            return
        place = _Place(self._file, byte)
        try:
            yield place.came.wait(patience_s)
        finally:
            place.leave()

    def unlock(self, byte: int) -> None:
        """Release a byte; nothing happens if it is not held."""
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _RELEASE[byte])

    def is_held_elsewhere(self, byte: int) -> bool:
        """Whether somebody else holds a byte."""
        answer = fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, _EXCLUSIVE[byte])
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)

    def close(self) -> None:
        """Release all of them."""
        os.close(self._fd)


class _Place:
    """A place in the line for a byte, where a thread waits: the kernel's waiting has no time limit.

    Args:
        file: Of the byte, opened once more: the lock is this place's alone.
        byte: What is waited for.
    """

    def __init__(self, file: Path, byte: int) -> None:
        self._fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        self._ending = threading.Lock()
        self._is_left = False
        self.came = threading.Event()
        threading.Thread(target=self._wait, args=(byte,), daemon=True).start()

    def _wait(self, byte: int) -> None:
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLKW, _EXCLUSIVE[byte])
        with self._ending:
            self.came.set()
            if self._is_left:
                os.close(self._fd)

    def leave(self) -> None:
        """Release the byte, at once or as soon as it comes."""
        with self._ending:
            self._is_left = True
            if self.came.is_set():
                os.close(self._fd)
