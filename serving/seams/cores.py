"""Cores of the node, which its replicas share."""

from __future__ import annotations

from typing import Protocol


class Cores(Protocol):
    """One replica's access to the cores of its node; see ``serving.cores``.

    ``take`` and ``give_back`` are never called at the same time.
    """

    def take(self, background: bool = False) -> tuple[int, ...]:
        """Wait for at least one core; returns the numbers of those that kernels may use until the
        next call, one thread on each.

        Args:
            background: Nobody waits for what they will do: others come first.
        """

    def hurry(self) -> None:
        """Somebody waits for this replica: background work that waits for others waits no more.

        May be called in any thread.
        """

    def give_back(self) -> None:
        """Give every core back, because there is no more work now."""

    def limit(self, most: int) -> None:
        """Take at most so many from the next call on."""

    def others_are_active(self) -> bool:
        """Whether another replica of the node has work that somebody waits for."""

    def close(self) -> None:
        """Leave; nothing is called after that."""
