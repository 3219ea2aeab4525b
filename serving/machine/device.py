"""Which device a variant runs on, and its instructions; without importing torch."""

from __future__ import annotations

import ctypes
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from serving.errors import ConfigError
from serving.machine.isa import instruction_set
from serving.seams import DeviceName, Runtime

# From cuda.h: CUdevice_attribute.
COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 75, 76

_CUDA_BUILD = re.compile(r"^cuda\b[^=]*=\s*['\"]", re.MULTILINE)
"""In torch's ``version.py``, whose CPU build says ``cuda = None``."""


def choose_device(wanted: str, runtime: Runtime) -> DeviceName:
    """Resolve ``auto``, ``cpu`` or ``cuda`` on this machine.

    Raises:
        ConfigError: The runtime or the machine has no such device.
    """
    if wanted == "auto":
        return "cuda" if "cuda" in runtime.devices and why_no_cuda() is None else "cpu"
    device: DeviceName = "cuda" if wanted == "cuda" else "cpu"
    if device not in runtime.devices:
        raise ConfigError(
            f"device is {device}, but the runtime has {' and '.join(runtime.devices)} only"
        )
    if device == "cuda" and (reason := why_no_cuda()) is not None:
        raise ConfigError(f"device is cuda, but {reason}")
    return device


@cache
def why_no_cuda() -> str | None:
    """Why nothing can run on CUDA here; None if it can."""
    if cuda_capability() is None:
        return "this machine has no CUDA device"
    return None if _torch_has_cuda() else "the installed torch is a build without CUDA"


def instructions_of(device: DeviceName) -> str:
    """Name the CPU's instruction set, or CUDA's compute capability, e.g. ``sm_90``."""
    if device == "cpu":
        return instruction_set()
    major, minor = cuda_capability() or (0, 0)
    return f"sm_{major}{minor}"


@cache
def cuda_capability() -> tuple[int, int] | None:
    """Compute capability of the first CUDA device that this process may use; None without one."""
    opened = _first_device()
    if opened is None:
        return None
    driver, device = opened
    return (
        _attribute(driver, COMPUTE_CAPABILITY_MAJOR, device),
        _attribute(driver, COMPUTE_CAPABILITY_MINOR, device),
    )


@cache
def cuda_memory_bytes() -> int | None:
    """Memory of the first CUDA device that this process may use; None without one."""
    opened = _first_device()
    if opened is None:
        return None
    driver, device = opened
    size = ctypes.c_size_t()
    driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    return size.value


def _first_device() -> tuple[ctypes.CDLL, ctypes.c_int] | None:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count, device = ctypes.c_int(), ctypes.c_int()
    # Each answers 0 for success.
    if (
        driver.cuInit(0)
        or driver.cuDeviceGetCount(ctypes.byref(count))
        or count.value == 0
        or driver.cuDeviceGet(ctypes.byref(device), 0)
    ):
        return None
    return driver, device


def _attribute(driver: ctypes.CDLL, attribute: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return value.value


def _torch_has_cuda() -> bool:
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).with_name("version.py")
    return _CUDA_BUILD.search(version.read_text("utf-8")) is not None
