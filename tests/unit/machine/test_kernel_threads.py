"""Where threads run, by the kernel's word."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from serving.machine.cores import core_numbers
from serving.machine.kernel_threads import KernelThreads, threads_of


class Pool:
    """Threads that wait."""

    def __init__(self, count: int) -> None:
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._end.wait, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    @property
    def ids(self) -> list[int]:
        return sorted(thread.native_id or 0 for thread in self._threads)

    def end(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def pool() -> Iterator[tuple[Pool, KernelThreads]]:
    made, threads = threads_of(lambda: Pool(1))
    everywhere = os.sched_getaffinity(0)
    yield made, threads
    made.end()
    os.sched_setaffinity(0, everywhere)


def test_the_threads_that_were_made_are_found(pool) -> None:
    made, threads = pool
    assert threads._ids == made.ids


def test_on_fewer_cores_all_of_them_take_turns_there(pool) -> None:
    made, threads = pool
    first = core_numbers()[:1]
    threads.run_on(first)
    assert [os.sched_getaffinity(one) for one in (*made.ids, 0)] == [set(first)] * 2


def test_with_a_core_for_each_they_run_anywhere(pool) -> None:
    made, threads = pool
    cores = core_numbers()
    threads.run_on(cores[:1])
    threads.run_on([*cores, *cores][:2])
    assert [os.sched_getaffinity(one) for one in (*made.ids, 0)] == [set(cores)] * 2
