"""What this process occupies, and how it keeps and returns freed memory (glibc only)."""

from __future__ import annotations

import ctypes
import gc
import resource
from pathlib import Path

import psutil

# From glibc's malloc.h; 32 MiB is the largest threshold that it accepts.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MMAP_THRESHOLD_BYTES = 32 * 2**20
CONVERSION_MMAP_THRESHOLD_BYTES = 2**20
TRIM_THRESHOLD_BYTES = 64 * 2**20

STATUS, SHARES = Path("/proc/self/status"), Path("/proc/self/smaps_rollup")


def release_freed_memory() -> None:
    """Give memory that Python and malloc hold on to back to the system, after a conversion."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def return_freed_memory() -> None:
    """Let malloc return freed blocks of 1 MiB or more at once, for the time of a conversion.

    It would soon keep those of up to 32 MiB, and converted layers would come to lie between them:
    the peak of loading 135 million parameters in int8 was 300 MB higher.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, CONVERSION_MMAP_THRESHOLD_BYTES)


def keep_freed_memory() -> None:
    """Let malloc reuse up to 64 MiB of freed memory instead of returning it at once.

    Activations of a few MiB are otherwise mapped, zeroed and unmapped by the system at every
    layer: page faults then take a third of the time of an int8 forward pass of 8 x 128 tokens.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)


def resident_bytes() -> int:
    """Resident memory of this process, of which pages that several have count by this one's share.

    So the sum over the replicas of a node is what they occupy. They share what they were forked
    with, and mapped files (Linux' "proportional set size"). Where the system does not know of
    shares, all of it.
    """
    return _kernel_bytes(SHARES, "Pss") or all_resident_bytes()


def private_bytes() -> int:
    """Resident memory of this process that no other has or can have: without mapped files' pages.

    Where the system does not tell them apart, all of it. Neither of the kernel's two numbers is
    it: one has what was there at a fork, the other files' pages that the disk does not have yet.
    """
    anonymous = _kernel_bytes(STATUS, "RssAnon")
    written = _kernel_bytes(SHARES, "Private_Dirty")
    return min(filter(None, (anonymous, written)), default=all_resident_bytes())


def peak_resident_bytes() -> int:
    """The largest ``resident_bytes`` of this process so far, if as much was shared then as now.

    ``ru_maxrss`` would start from what the process had that forked this one.
    """
    return peak_all_resident_bytes() - (all_resident_bytes() - resident_bytes())


def peak_all_resident_bytes() -> int:
    """The largest ``all_resident_bytes`` of this process so far."""
    peak = _kernel_bytes(STATUS, "VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if peak is None else peak


def all_resident_bytes() -> int:
    """Resident memory of this process, whoever else has the same pages."""
    resident: int = psutil.Process().memory_info().rss
    return resident


def _kernel_bytes(table: Path, name: str) -> int | None:
    """A line of a table of the kernel's about this process, in bytes."""
    try:
        lines = table.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    values = [int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")]
    return values[0] if values else None
