"""A lock that one process of all holds, and that the kernel releases if its holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

POLL_S = 0.2


@contextlib.contextmanager
def exclusive_lock(
    file: Path, stop: threading.Event, on_wait: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold the lock that a file stands for; the file goes with it.

    On a volume of several nodes it holds for all of them, where the file system passes ``flock``
    on, as NFS does.

    Args:
        file: The lock's file; its folder is there.
        stop: Ends the wait.
        on_wait: Called once if another holds it.

    Raises:
        InterruptedError: ``stop`` was set while another held it.
    """
    handle = _wait_for(file, stop, on_wait)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        os.close(handle)


def try_lock(file: Path) -> int | None:
    """Take the lock now; None if another holds it. Closing the handle releases it."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        if _is_still(file, handle):
            return handle
        os.close(handle)


def _wait_for(file: Path, stop: threading.Event, on_wait: Callable[[], None]) -> int:
    handle = try_lock(file)
    if handle is None:
        on_wait()
    while handle is None:
        if stop.wait(POLL_S):
            raise InterruptedError
        handle = try_lock(file)
    return handle


def _is_still(file: Path, handle: int) -> bool:
    """Whether the file is the one that was locked: the last holder removed it on leaving."""
    try:
        return os.path.samestat(os.stat(file), os.fstat(handle))
    except FileNotFoundError:
        return False
