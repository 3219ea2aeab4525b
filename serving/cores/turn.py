"""The right of one replica to run kernels on some of the node's cores."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from serving.cores.byte_locks import ByteLocks
from serving.cores.members import Members
from serving.cores.shares import share
from serving.machine.cores import core_numbers

logger = logging.getLogger("ray.serve.quantserve")

QUEUE_BYTE = 1_000
"""Held by the one that gets the next core, while the others wait. Cores are the bytes from 0."""

DECIDE_S = 0.1
"""How often a holder looks whether it may have more cores: a team of threads that changes its size
at every step pays for it."""

QUANTUM_S = 0.02
"""How long a holder may go on while others wait and there are fewer cores than active replicas."""

LOOK_AGAIN_S = 0.01
"""How long a waiter sleeps at most: a holder that was killed wakes nobody."""

PATIENCE_S = 5.0
"""Who has waited so long for a core goes on without one: a replica that hangs keeps its cores until
it is replaced, and one that is stopped its place in the line."""

GLANCE_S = 0.05
GLANCES_S = 30.0
"""From then on it waits in no line, and so long at each pass; until a core has come while nobody
stands in line, or for half a minute: a line that moves looks closed, too."""

BACKGROUND_POLL_S = 0.005
BACKGROUND_BOUND_S = 1.0
"""Background work waits so long at most for foreground work to end, for each of its passes."""


class CoreTurn:
    """One replica's share of the cores of its node.

    Every core has one holder or none, and who holds a core may run one thread. Active replicas
    split the cores evenly. A replica keeps its cores from pass to pass, gives back what is above
    its share as soon as others have work, and takes more only some time after they had the last.
    Where more replicas are active than there are cores, they take turns in the order in which they
    came. Who waits for seconds goes on without a core. Background work takes cores while nobody has
    other work, or after a second.

    ``take`` and ``give_back`` are never called at the same time.

    Args:
        most: Cores to take at most.
        cores: Numbers of the node's cores.
        folder: Shared by all of its replicas; see ``shared_folder``.

    Raises:
        OSError: The folder cannot be used.
    """

    def __init__(self, most: int, cores: Sequence[int], folder: Path) -> None:
        self._most, self._cores = min(most, len(cores)), cores
        self._locks = ByteLocks(folder / "locks")
        self._members = Members(folder, self._locks)
        self._wake = _open_pipe(folder / "wake")
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._hurry = threading.Event()
        self._held: list[int] = []
        """Places in ``_cores``."""
        self._glances_until = 0.0
        self._since = 0.0
        self._decide_at = 0.0

    def take(self, background: bool = False) -> tuple[int, ...]:
        """Return the numbers of the cores that the next pass may use, once there is at least one.

        After seconds without any it is one that somebody else has.

        Args:
            background: Nobody waits for the pass.
        """
        if background:
            self._take_in_quiet()
        else:
            self._hurry.clear()
            self._members.note_work()
            if self._held and (time.monotonic() >= self._decide_at or self._members.others_wait()):
                self._decide()
            if not self._held:
                self._queue()
        # Where other replicas have every core for themselves, nothing is left to share; and one
        # that hangs must not hang all others.
        return tuple(self._cores[place] for place in self._held) or (self._cores[0],)

    def hurry(self) -> None:
        """Somebody waits for this replica: its background work joins the queue at once."""
        self._hurry.set()

    def give_back(self) -> None:
        """Give every core back, because there is no more work."""
        self._hurry.clear()
        self._members.note_no_work()
        self._release(0)

    def limit(self, most: int) -> None:
        """Take at most so many cores from the next call on."""
        self._most = min(most, len(self._cores))
        self._decide_at = 0.0

    def others_are_active(self) -> bool:
        """Whether another replica of the node has work that somebody waits for."""
        return self._members.others_are_active()

    def close(self) -> None:
        """Leave; the cores go to the others."""
        self._release(0)
        self._members.close()
        self._locks.close()
        os.close(self._wake)

    def _share(self) -> int:
        active, own = self._members.active(), self._members.row
        if own not in active:
            # In the background: the cores are free, but one is enough beside others.
            return 1 if active else min(self._most, self._num_shared)
        return min(self._most, share(self._num_shared, len(active), active.index(own)))

    @property
    def _nothing_is_shared(self) -> bool:
        return self._members.exclusive_cores() >= len(self._cores)

    @property
    def _num_shared(self) -> int:
        return max(1, len(self._cores) - self._members.exclusive_cores())

    def _decide(self) -> None:
        """Give back what is too much, and take what is free and due."""
        now = time.monotonic()
        self._decide_at = now + DECIDE_S
        due = self._share()
        if len(self._held) > due:
            self._release(due)
        elif self._members.others_wait():
            is_crowded = len(self._members.active()) > self._num_shared
            if is_crowded and now - self._since >= QUANTUM_S:
                self._release(0)
        elif len(self._held) < due:
            self._take_free(due)

    def _queue(self) -> None:
        glances = time.monotonic() < self._glances_until
        self._members.note_waiting(GLANCE_S if glances else PATIENCE_S)
        try:
            if glances:
                self._await_core(GLANCE_S)
                if self._held and not self._locks.is_held_elsewhere(QUEUE_BYTE):
                    self._glances_until = 0.0
            elif not self._await_core_in_line():
                self._give_up()
        finally:
            self._members.note_waiting(0)
        self._since = time.monotonic()
        self._decide_at = self._since + DECIDE_S

    def _await_core_in_line(self) -> bool:
        """Wait for a core behind those who came before; returns whether the line moved for it."""
        until = time.monotonic() + PATIENCE_S
        with self._locks.in_line(QUEUE_BYTE, PATIENCE_S) as is_first:
            self._await_core(until - time.monotonic() if is_first else 0)
        return is_first and (bool(self._held) or self._nothing_is_shared)

    def _give_up(self) -> None:
        self._glances_until = time.monotonic() + GLANCES_S
        logger.warning(
            "no core came free for %g s: another replica hangs or is stopped; going on without",
            PATIENCE_S,
        )

    def _await_core(self, patience_s: float) -> None:
        until = time.monotonic() + patience_s
        while not (self._take_free(self._share()) or self._nothing_is_shared):
            if time.monotonic() >= until:
                return
            if self._poll.poll(LOOK_AGAIN_S * 1e3):
                _drain(self._wake)

    def _take_free(self, due: int) -> bool:
        for place in range(len(self._cores)):
            if len(self._held) >= due:
                break
            if place not in self._held and self._locks.try_lock(place):
                self._held.append(place)
        return bool(self._held)

    def _release(self, keep: int) -> None:
        released = self._held[keep:]
        del self._held[keep:]
        for place in released:
            self._locks.unlock(place)
        if released:
            _notify(self._wake)

    def _take_in_quiet(self) -> None:
        """Take cores while nobody has other work, or join the queue after a while."""
        self._members.note_no_work()
        until = time.monotonic() + BACKGROUND_BOUND_S
        while time.monotonic() < until:
            if self._members.others_are_active():
                self._release(0)
            else:
                due = min(self._most, self._num_shared)
                self._release(due)
                self._take_free(due)
                if len(self._held) == due:
                    return
            if self._hurry.wait(BACKGROUND_POLL_S):
                break
        if not self._held:
            self._queue()


def shared_folder() -> Path:
    """The folder of this user's replicas on these cores; made if there is none.

    Raises:
        OSError: It cannot be made, or belongs to somebody else.
    """
    cores = ".".join(map(str, core_numbers()))[:100]
    folder = Path(tempfile.gettempdir(), f"quantserve-cores-{os.getuid()}-{cores}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.is_symlink():
        raise PermissionError(f"{folder} belongs to somebody else")
    return folder


def _open_pipe(path: Path) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def _notify(pipe: int) -> None:
    with contextlib.suppress(BlockingIOError):  # full of what will wake the waiter, too
        os.write(pipe, b"\0")


def _drain(pipe: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(pipe, 4_096)
