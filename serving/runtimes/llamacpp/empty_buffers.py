"""Gives back the memory of buffers that llama.cpp fills with zeros as it opens a context.

It writes the whole cache of keys and values once: 360 MiB for eight sequences of 2,048 tokens of
SmolLM2, of which most replicas never use half. Pages that the system takes back read as zeros
again, and cost memory when something is first put into them.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_size_t, c_void_p
from typing import Any

import numpy as np

_Allocate = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_size_t)

_ALLOCATE_PLACE = 1
"""Place of ``alloc_buffer`` among the functions of a ``ggml_backend_buffer_type``."""

_PIECE_BYTES = 2**22
"""Looked at at once: reading maps no memory for pages that were never written."""


@contextmanager
def return_empty_buffers(base: Any) -> Iterator[None]:
    """Have the system take back those pages of buffers that are made in the body and hold zeros.

    Args:
        base: ggml's library. Nothing else may make buffers of it meanwhile.
    """
    made: list[int] = []
    with _watched_allocations(base, made):
        yield
    for buffer in made:
        base.ggml_backend_buffer_get_base.restype = c_void_p
        base.ggml_backend_buffer_get_size.restype = c_size_t
        start = base.ggml_backend_buffer_get_base(c_void_p(buffer))
        size = base.ggml_backend_buffer_get_size(c_void_p(buffer))
        if start:
            _return_zeros(start, size)


@contextmanager
def _watched_allocations(base: Any, made: list[int]) -> Iterator[None]:
    base.ggml_backend_cpu_buffer_type.restype = c_void_p
    functions = (c_void_p * 2).from_address(base.ggml_backend_cpu_buffer_type())
    original = functions[_ALLOCATE_PLACE]
    assert original is not None
    allocate = _Allocate(original)

    def watched(kind: int, size: int) -> int | None:
        buffer: int | None = allocate(kind, size)
        if buffer is not None:
            made.append(buffer)
        return buffer

    replacement = _Allocate(watched)
    functions[_ALLOCATE_PLACE] = ctypes.cast(replacement, c_void_p).value
    try:
        yield
    finally:
        functions[_ALLOCATE_PLACE] = original


def _return_zeros(start: int, size: int) -> None:
    """Return whole pieces of memory that hold zeros alone."""
    page, libc = mmap.PAGESIZE, ctypes.CDLL(None, use_errno=True)
    first, last = -(-start // page) * page, (start + size) // page * page
    for place in range(first, last, _PIECE_BYTES):
        length = min(_PIECE_BYTES, last - place)
        words = np.ctypeslib.as_array((ctypes.c_uint64 * (length // 8)).from_address(place))
        if not words.any():
            libc.madvise(c_void_p(place), c_size_t(length), mmap.MADV_DONTNEED)
