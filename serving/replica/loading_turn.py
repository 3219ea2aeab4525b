"""Turns at loading: the replicas of a node load as many at once as it has cores."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serving.cores.byte_locks import ByteLocks
from serving.cores.turn import shared_folder

logger = logging.getLogger("ray.serve.quantserve")

FIRST_PLACE, LAST_PLACE = 1_024, 2_047
"""Bytes that those who wait hold, each a higher one than whoever came before. Turns are the bytes
from 0."""

LOOK_AGAIN_S = 0.1
"""How often those who wait look whether it is their turn: a holder that was killed wakes nobody."""

LONGEST_WAIT_S = 120.0
"""Whoever has waited so long loads without a turn: one that hangs must not hold up the others."""


def open_turns() -> ByteLocks | None:
    """What the replicas of this node take turns by; None where the kernel has no such locks."""
    if not hasattr(fcntl, "F_OFD_SETLK"):
        return None
    try:
        return ByteLocks(shared_folder() / "loading")
    except OSError as error:
        logger.warning("replicas do not load by turns: %s", error)
        return None


@asynccontextmanager
async def loading_turn(turns: ByteLocks | None, num_turns: int) -> AsyncIterator[None]:
    """Wait for a turn at loading, and hold it inside.

    All replicas at once would be ready together, at the very end, and each import and each first
    pass takes longer beside a dozen others. Turns are given in the order in which replicas come,
    which is that of the configuration where they were deployed together.

    Args:
        turns: What ``open_turns`` returned; closed in the end. The kernel does that for a process
            that was killed.
        num_turns: How many may load at once.
    """
    if turns is None:
        yield
        return
    try:
        await _wait(turns, num_turns)
        yield
    finally:
        turns.close()


async def _wait(locks: ByteLocks, num_turns: int) -> None:
    place = _queue(locks)
    until = time.monotonic() + LONGEST_WAIT_S
    while time.monotonic() < until:
        is_next = not any(map(locks.is_held_elsewhere, range(FIRST_PLACE, place)))
        if is_next and any(map(locks.try_lock, range(num_turns))):
            break
        await asyncio.sleep(LOOK_AGAIN_S)
    locks.unlock(place)


def _queue(locks: ByteLocks) -> int:
    """Take the place behind everyone who waits."""
    places = range(FIRST_PLACE, LAST_PLACE + 1)
    place = 1 + max(filter(locks.is_held_elsewhere, places), default=FIRST_PLACE - 1)
    while place < LAST_PLACE and not locks.try_lock(place):
        place += 1  # somebody came at the same moment
    return place
