"""Who is let in: everybody, but background requests only while nobody else is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from serving.errors import QueueFull


class Admission:
    """Counts the requests of one backend that have no answer yet."""

    def __init__(self) -> None:
        self._there: Counter[bool] = Counter()
        """Requests by whether they are background ones."""

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
        if background and self._there.total():
            raise QueueFull(
                "the replica has other work, and a background request does not wait for it; "
                "retry later",
                retry_after_s=1,
            )
        self._there[background] += 1
        try:
            yield
        finally:
            self._there[background] -= 1
