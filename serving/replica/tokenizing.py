"""Where texts are tokenized: short ones at once, long ones in a few threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

INLINE_CHARACTERS = 16_384
"""Texts that are longer together are tokenized in a thread, so that the event loop stays free."""

MAX_THREADS = 2
"""A second one, so that a text of two megabytes does not hold up all that are shorter."""

Arguments = ParamSpec("Arguments")
Tokens = TypeVar("Tokens")


class Tokenizing:
    """Runs the functions of one task that turn text into tokens.

    Who waits for a thread and is cancelled leaves nothing behind. A thread that has begun goes on
    to its end, and until then no other takes its turn.
    """

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(MAX_THREADS)

    async def run(
        self,
        characters: int,
        function: Callable[Arguments, Tokens],
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> Tokens:
        """Call ``function`` on texts of so many characters; raises what it raises."""
        if characters <= INLINE_CHARACTERS:
            return function(*arguments, **options)
        return await self.run_in_thread(function, *arguments, **options)

    async def run_in_thread(
        self,
        function: Callable[Arguments, Tokens],
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> Tokens:
        """Call ``function`` in a thread as soon as one is free; raises what it raises."""
        await self._turns.acquire()
        thread = asyncio.create_task(asyncio.to_thread(function, *arguments, **options))
        thread.add_done_callback(lambda _: self._turns.release())
        return await asyncio.shield(thread)
