"""How many cores each of several active replicas gets. No clock, no locks."""

from __future__ import annotations


def share(num_cores: int, num_active: int, rank: int) -> int:
    """Cores of one of the active replicas, at least 1 even if there are more replicas than cores.

    Args:
        num_cores: Cores of the node.
        num_active: Replicas that have work, at least 1.
        rank: The replica's place among them, from 0; the first ones get what is left over.
    """
    whole, rest = divmod(num_cores, num_active)
    return max(1, whole + (rank < rest))
