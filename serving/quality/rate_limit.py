"""How many of something are let through."""

from __future__ import annotations

import time
from collections.abc import Callable


class RateLimit:
    """A token bucket that holds what one second allows, and at least one; it begins full.

    Args:
        per_second: How many on average, above 0.
        now: A clock in seconds that never goes back.
    """

    def __init__(self, per_second: float, now: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._capacity = max(per_second, 1.0)
        self._left = self._capacity
        self._now = now
        self._filled_at = now()

    def take(self) -> bool:
        """Let one through if there is one left."""
        now = self._now()
        gained = (now - self._filled_at) * self._per_second
        self._left = min(self._left + gained, self._capacity)
        self._filled_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
