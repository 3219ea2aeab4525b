"""What a figure was measured under; printed with every figure."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

import psutil

from serving.machine.isa import instruction_set
from serving.machine.processor import processor

PACKAGES = ("torch", "transformers", "torchao", "openvino", "onnxruntime", "ray")


def conditions(threads: int) -> str:
    """One paragraph: processor, memory, versions, threads."""
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    gibibytes = psutil.virtual_memory().total / 1024**3
    return (
        f"{processor()}, {os.cpu_count()} cores, {instruction_set()}, {gibibytes:.0f} GiB; "
        f"Python {platform.python_version()}, {versions}; {threads} threads, "
        f"GOMP_SPINCOUNT={os.environ.get('GOMP_SPINCOUNT', 'unset')}"
    )
