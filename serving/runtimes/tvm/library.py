"""Loads TVM's runtime, 3 MB of it: no compiler, and not torch."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import get_ident
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.errors import MayPass
from serving.machine.cores import core_numbers

ALIGNMENT = 64
"""Of each array, in bytes: compiled code loads whole registers."""

SPIN_COUNT = "300"
"""How often an idle thread of the pool looks for work before it sleeps, about 100 µs (decision 7).

TVM's own is 300,000, a tenth of a second of another replica's core."""

_CPU = 1
_PLAIN_ALLOCATOR = 1
"""Of TVM's two; the other keeps the memory of each shape that ever came."""

_SHARED = -3
"""Of TVM's ways to place threads: each of them may run on all of the cores."""


class CompiledGraph:
    """A library that TVM wrote, with the numbers that it computes with.

    Args:
        file: The library. It is code: whoever opens it has compared it with its digest.
        numbers: In the order in which the function takes them.
        function: Name of the function.
        threads: Of the pool, the caller included.

    Raises:
        MayPass: TVM cannot open it; its bytes were right when they were compared.
    """

    def __init__(
        self, file: Path, numbers: Sequence[NDArray[Any]], function: str, threads: int
    ) -> None:
        os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", SPIN_COUNT)
        self._ffi = _runtime()
        try:
            machine = self._ffi.load_module(str(file))["vm_load_executable"]()
            machine["vm_initialization"](_CPU, 0, _PLAIN_ALLOCATOR)
            self._function = machine[function]
        except Exception as error:  # its own types share no base
            raise MayPass(f"{file}: TVM cannot open it: {error}") from error
        self._configure = self._ffi.get_global_func("runtime.config_threadpool")
        self._numbers = [self._tensor(each) for each in numbers]
        every = core_numbers()
        self._cores = tuple(every[index % len(every)] for index in range(threads))
        self._placed: tuple[int, tuple[int, ...]] | None = None
        self._place()

    def use_cores(self, cores: Sequence[int]) -> None:
        """Run on these cores from now on, with a thread for each."""
        self._cores = tuple(cores)
        self._place()

    def run(self, inputs: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Call the function with inputs, then the numbers."""
        self._place()
        output = self._function(*map(self._tensor, inputs), *self._numbers)
        return np.asarray(np.from_dlpack(output), np.float32)

    def _tensor(self, array: NDArray[Any]) -> Any:
        return self._ffi.from_dlpack(aligned(array), require_alignment=ALIGNMENT)

    def _place(self) -> None:
        """Tell the pool, which is the calling thread's own, where and with how many to run."""
        wanted = (get_ident(), self._cores)
        if self._placed != wanted:
            self._configure(_SHARED, len(self._cores), [str(core) for core in self._cores])
            self._placed = wanted


def aligned(array: NDArray[Any]) -> NDArray[Any]:
    """The array itself if it begins at a multiple of ``ALIGNMENT``, or a copy that does."""
    if array.ctypes.data % ALIGNMENT == 0 and array.flags.c_contiguous:
        return array
    room = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _runtime() -> Any:
    """Import TVM's foreign function interface, and load the runtime library beside ``tvm``."""
    with _without_torch():
        import tvm_ffi
    spec = find_spec("tvm")
    assert spec is not None, "whether packages are installed was asked before"
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0])
    ctypes.CDLL(str(folder / "lib" / "libtvm_runtime.so"), ctypes.RTLD_GLOBAL)
    return tvm_ffi


@contextmanager
def _without_torch() -> Iterator[None]:
    """``tvm_ffi`` imports torch wherever it is installed, which is seconds and 200 MiB."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # an import of it raises then
    try:
        yield
    finally:
        del sys.modules["torch"]
