"""Locks on single bytes of a file, which the kernel releases when their holder dies (Linux)."""

from __future__ import annotations

import fcntl
import os
import struct
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
        self._fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def try_lock(self, byte: int) -> bool:
        """Lock a byte unless somebody else holds it; returns whether it is held now."""
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _EXCLUSIVE[byte])
        except (BlockingIOError, PermissionError):
            return False
        return True

    def lock(self, byte: int) -> None:
        """Lock a byte, however long it takes; other threads run meanwhile."""
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLKW, _EXCLUSIVE[byte])

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
