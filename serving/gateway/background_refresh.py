"""A value that is read again in the background, so that no request waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from math import inf
from typing import Generic, TypeVar

logger = logging.getLogger("ray.serve.quantserve")

MAX_AGE_S = 2.0
"""Most values do not change faster."""

READ_TIMEOUT_S = 15.0

T = TypeVar("T")


class RefreshedValue(Generic[T]):
    """The last value that could be read.

    Args:
        what: Name of the value, for the log.
        read: Reads it, given the last value.
        initial: The value until it was read.
        first_wait_s: Seconds that may be waited for the first value, and for the first after
            ``forgotten_after_s``; no other is waited for.
        forgotten_after_s: After so long without need the value says nothing of the present.
        max_age_s: A value that was asked for longer ago is asked for again when it is next needed;
            None stands for ``MAX_AGE_S``.
    """

    def __init__(
        self,
        what: str,
        read: Callable[[T], Awaitable[T]],
        initial: T,
        first_wait_s: float,
        forgotten_after_s: float = inf,
        max_age_s: float | None = None,
    ) -> None:
        self._what = what
        self._read = read
        self._value = initial
        self._first_wait_s = first_wait_s
        self._forgotten_after_s = forgotten_after_s
        self._max_age_s = max_age_s
        self._task: asyncio.Task[None] | None = None
        self._asked_at = -inf
        self._wait_until = -inf
        self._has_failed = False

    async def get(self) -> T:
        """Return the value; if it is old, have it read for later calls."""
        now = asyncio.get_running_loop().time()
        max_age_s = MAX_AGE_S if self._max_age_s is None else self._max_age_s
        if self._task is None or (self._task.done() and now - self._asked_at > max_age_s):
            is_forgotten = now - self._asked_at > self._forgotten_after_s
            has_to_wait = self._task is None or is_forgotten
            self._wait_until = now + self._first_wait_s if has_to_wait else now
            self._asked_at = now
            self._task = asyncio.create_task(self._refresh())
        if now < self._wait_until and not self._task.done():
            await asyncio.wait({self._task}, timeout=self._wait_until - now)
        return self._value

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                self._value = await self._read(self._value)
            self._has_failed = False
        except Exception as error:  # whatever Ray raises for a process that is gone
            if not self._has_failed:
                logger.warning("%s cannot be read: %s", self._what, error)
            self._has_failed = True
