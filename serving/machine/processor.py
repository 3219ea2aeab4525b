"""Which processor this is."""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """Its name and family, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
    name = facts.get("model name", platform.machine())
    return f"{name} (family {facts['cpu family']})" if "cpu family" in facts else name
