"""What a load test was measured under."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import psutil


def conditions() -> dict[str, str]:
    """The generator's machine and versions; the server may be elsewhere."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{psutil.virtual_memory().total / 1024**3:.0f} GiB",
        "system": platform.platform(),
        "python": platform.python_version(),
        "aiohttp": version("aiohttp"),
        "quantserve": version("quantserve"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
