"""Who is let in: everybody, but background requests only while nobody else is there, or seldom."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serving.errors import QueueFull

BACKGROUND_BOUND_S = 2.0
"""A replica that always has other work lets a background request in so long after it has refused
one: what is learned of a variant under load must not wait for the end of the load."""


class Admission:
    """Counts the requests of one backend that have no answer yet.

    Args:
        note_busy: Gets seconds in which there was one that somebody waits for, as they pass: at
            each beginning and each end of such a request.
        clock: Seconds.
    """

    def __init__(
        self, note_busy: Callable[[float], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._there: Counter[bool] = Counter()
        """Requests by whether they are background ones."""
        self._note_busy, self._clock = note_busy, clock
        self._noted_at = clock()
        self._refused_at: float | None = None

    @property
    def in_flight(self) -> int:
        """Requests that somebody waits for."""
        return self._there[False]

    @contextmanager
    def admit(self, background: bool) -> Iterator[None]:
        """Count a request while the block runs.

        Raises:
            QueueFull: It is a background request, and another one is there.
        """
        if background:
            self._check_background()
        self._note()
        self._there[background] += 1
        try:
            yield
        finally:
            self._note()
            self._there[background] -= 1

    def _note(self) -> None:
        now = self._clock()
        if self.in_flight:
            self._note_busy(now - self._noted_at)
        self._noted_at = now

    def _check_background(self) -> None:
        if self._there[True] or (self._there[False] and not self._has_waited()):
            if self._refused_at is None:
                self._refused_at = self._clock()
            raise QueueFull(
                "the replica has other work, and a background request does not wait for it; "
                "retry later",
                retry_after_s=1,
            )
        self._refused_at = None

    def _has_waited(self) -> bool:
        return (
            self._refused_at is not None and self._clock() - self._refused_at >= BACKGROUND_BOUND_S
        )
