"""How many threads OpenVINO's kernels use at the moment (its build on oneTBB)."""

from __future__ import annotations

import ctypes
import logging
from pathlib import Path

import openvino

logger = logging.getLogger("ray.serve.quantserve")

_MAX_ALLOWED_PARALLELISM = 0
_CREATE = "_ZN3tbb6detail2r16createERNS0_2d114global_controlE"
_DESTROY = "_ZN3tbb6detail2r17destroyERNS0_2d114global_controlE"


class _GlobalControl(ctypes.Structure):
    """The members of ``tbb::global_control``, whose constructor calls ``create`` on itself."""

    _fields_ = (
        ("value", ctypes.c_size_t),
        ("reserved", ctypes.c_ssize_t),
        ("parameter", ctypes.c_int),
    )


class Parallelism:
    """Limits the threads of this process's oneTBB, without compiling the graph anew.

    A graph is compiled for a number of threads and has no setting to change it; one compiled for
    each number would pack its weights again. oneTBB itself has one for the whole process,
    ``tbb::global_control`` (max_allowed_parallelism), part of its stable binary interface.

    Args:
        most: Threads that graphs are compiled for.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._library = _load_tbb()
        self._limit: _GlobalControl | None = None

    def limit(self, threads: int) -> None:
        """Let at most so many threads run from now on, the calling one included."""
        now = self._most if self._limit is None else self._limit.value
        if threads == now or self._library is None:
            return
        if self._limit is not None:
            self._library[_DESTROY](ctypes.byref(self._limit))
            self._limit = None
        if threads < self._most:
            limit = _GlobalControl(threads, 0, _MAX_ALLOWED_PARALLELISM)
            self._library[_CREATE](ctypes.byref(limit))
            self._limit = limit


def _load_tbb() -> ctypes.CDLL | None:
    """The library that OpenVINO has loaded; None if this build of it has another."""
    for path in Path(openvino.__file__).parent.glob("libs/libtbb.so*"):
        library = ctypes.CDLL(str(path))
        if hasattr(library, _CREATE) and hasattr(library, _DESTROY):
            return library
    logger.warning("OpenVINO keeps all its threads beside busy replicas: it has no oneTBB here")
    return None
