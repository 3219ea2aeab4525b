"""What a figure was measured under; printed with every figure."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import psutil

from serving.machine.isa import instruction_set
from serving.machine.processor import processor

PACKAGES = (
    *("torch", "transformers", "openvino", "onnxruntime", "ai-edge-litert", "apache-tvm"),
    "ray",
)


def conditions(threads: int) -> str:
    """One paragraph: processor, memory, versions, threads."""
    versions = ", ".join(found for package in PACKAGES if (found := _version(package)))
    gibibytes = psutil.virtual_memory().total / 1024**3
    return (
        f"{processor()}, {os.cpu_count()} cores, {instruction_set()}, {gibibytes:.0f} GiB; "
        f"Python {platform.python_version()}, {versions}; {threads} threads, "
        f"GOMP_SPINCOUNT={os.environ.get('GOMP_SPINCOUNT', 'unset')}, "
        f"OMP_WAIT_POLICY={os.environ.get('OMP_WAIT_POLICY', 'unset')}"
    )


def _version(package: str) -> str:
    """Empty if it is not installed."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return ""
