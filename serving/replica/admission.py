"""Who is let in: everybody, but background requests only while nobody else is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from serving.errors import QueueFull


class Admission:
    """Counts the requests of one backend that have no answer yet."""

    def __init__(self) -> None:
        self.in_flight = 0

    @contextmanager
    def admit(self, background: bool) -> Iterator[None]:
        """Count a request while the block runs.

        Raises:
            QueueFull: It is a background request, and another one is there.
        """
        if background and self.in_flight:
            raise QueueFull(
                "the replica has other work, and a background request does not wait for it; "
                "retry later",
                retry_after_s=1,
            )
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
