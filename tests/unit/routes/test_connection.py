"""Work ends with its client, and otherwise by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from serving.routes.connection import while_connected


class Work:
    """Runs until ``finish`` is set; notes how it ended."""

    def __init__(self, error: Exception | None = None) -> None:
        self.finish = asyncio.Event()
        self.error = error
        self.ending = ""

    async def __call__(self) -> None:
        try:
            await self.finish.wait()
            if self.error is not None:
                raise self.error
            self.ending = "finished"
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # cleans up
            self.ending = "cancelled"
            raise


def messages(*kinds: str) -> Any:
    """A ``receive`` that gives messages of these kinds, and then waits for ever."""
    left: Iterable[str] = iter(kinds)

    async def receive() -> dict[str, str]:
        for kind in left:
            return {"type": kind}
        await asyncio.Event().wait()
        raise AssertionError

    return receive


async def test_work_ends_by_itself() -> None:
    work = Work()
    work.finish.set()
    await while_connected(messages(), work())
    assert work.ending == "finished"


async def test_an_error_is_raised() -> None:
    work = Work(ValueError("wrong"))
    work.finish.set()
    with pytest.raises(ValueError, match="wrong"):
        await while_connected(messages(), work())


async def test_a_client_that_leaves_ends_it_after_its_cleaning_up() -> None:
    work = Work()
    await while_connected(messages("http.disconnect"), work())
    assert work.ending == "cancelled"


async def test_only_a_disconnect_does() -> None:
    work = Work()
    running = asyncio.create_task(while_connected(messages("http.request", "http.other"), work()))
    done, _ = await asyncio.wait([running], timeout=0.01)
    assert not done
    work.finish.set()
    await running
    assert work.ending == "finished"


async def test_a_cancelled_caller_ends_it_after_its_cleaning_up() -> None:
    work = Work()
    running = asyncio.create_task(while_connected(messages(), work()))
    await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert work.ending == "cancelled"


async def test_work_that_cancels_itself_does_not_end_without_a_word() -> None:
    async def gives_up() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await while_connected(messages(), gives_up())


async def test_nothing_is_left_running() -> None:
    for kinds in ((), ("http.disconnect",)):
        work = Work()
        work.finish.set()
        await while_connected(messages(*kinds), work())
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
