"""Which device a variant runs on, its cores and its instructions."""

from __future__ import annotations

import os

import torch

from serving.errors import ConfigError
from serving.machine.isa import instruction_set
from serving.seams import DeviceName


def choose_device(wanted: str) -> DeviceName:
    """Resolve ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigError: ``cuda`` is asked for, and torch sees none.
    """
    has_cuda = torch.cuda.is_available()
    if wanted == "cuda" and not has_cuda:
        raise ConfigError("device is cuda, but torch sees no CUDA device on this machine")
    return "cuda" if has_cuda and wanted != "cpu" else "cpu"


def available_cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def instructions_of(device: DeviceName) -> str:
    """Name the CPU's instruction set, or CUDA's compute capability, e.g. ``sm_90``."""
    if device == "cpu":
        return instruction_set()
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}"
