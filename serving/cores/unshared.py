"""Cores that need not be shared: on other devices, and where the kernel has no such locks."""

from __future__ import annotations


class UnsharedCores:
    """Stands in for ``CoreTurn`` and gives every core at once.

    Args:
        most: How many threads kernels may have.
    """

    def __init__(self, most: int) -> None:
        self._places = tuple(range(most))

    def take(self, background: bool = False) -> tuple[int, ...]:
        """Return them at once."""
        return self._places

    def hurry(self) -> None:
        """Do nothing: nobody waits."""

    def give_back(self) -> None:
        """Do nothing."""

    def limit(self, most: int) -> None:
        """Give at most so many from now on."""
        self._places = tuple(range(most))

    def others_are_active(self) -> bool:
        """Nobody is known."""
        return False

    def close(self) -> None:
        """Do nothing."""
