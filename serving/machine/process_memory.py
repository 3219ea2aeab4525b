"""How the process keeps and returns memory that torch has freed (glibc only)."""

from __future__ import annotations

import ctypes
import gc

# From glibc's malloc.h; 32 MiB is the largest threshold that it accepts.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MMAP_THRESHOLD_BYTES = 32 * 2**20
CONVERSION_MMAP_THRESHOLD_BYTES = 2**20
TRIM_THRESHOLD_BYTES = 64 * 2**20


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
