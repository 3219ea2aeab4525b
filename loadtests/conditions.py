"""What a load test was measured under."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

import psutil

from serving.machine.processor import processor


def conditions() -> dict[str, str]:
    """The generator's machine and versions; the server may be elsewhere."""
    return {
        "processor": processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "priority": priority(os.getpriority(os.PRIO_PROCESS, 0)),
        "memory": f"{psutil.virtual_memory().total / 1024**3:.0f} GiB",
        "system": platform.platform(),
        "python": platform.python_version(),
        "aiohttp": version("aiohttp"),
        "quantserve": version("quantserve"),
    }


def priority(niceness: int) -> str:
    """What a niceness, from -20 to 19, means for this process beside others."""
    if niceness == 0:
        return "as any other process (niceness 0)"
    place = "before" if niceness < 0 else "after"
    return f"{place} other processes (niceness {niceness})"
