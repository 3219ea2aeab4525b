"""Memory that this machine, or the container on it, has left."""

from __future__ import annotations

from pathlib import Path

import psutil


def available_bytes() -> int:
    """Memory that processes may still take: the machine's, or less in a container with a limit.

    Pages of files that the kernel can drop count as free (control groups, version 2).
    """
    available: int = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        statistics = (group / "memory.stat").read_text().split()
    except OSError:
        return available
    droppable = int(statistics[statistics.index("inactive_file") + 1])
    return available if limit == "max" else min(available, int(limit) - used + droppable)
