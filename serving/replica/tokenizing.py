"""Where texts are tokenized: short ones at once, long ones in a few threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from serving.errors import InputFails
from serving.rust_panics import RustPanic, panics_as_errors

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
            return _refusing_panics(function, *arguments, **options)
        return await self.run_in_thread(function, *arguments, **options)

    async def run_in_thread(
        self,
        function: Callable[Arguments, Tokens],
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> Tokens:
        """Call ``function`` in a thread as soon as one is free; raises what it raises."""
        await self._turns.acquire()
        guarded = partial(_refusing_panics, function, *arguments, **options)
        thread = asyncio.create_task(asyncio.to_thread(guarded))
        thread.add_done_callback(lambda _: self._turns.release())
        return await asyncio.shield(thread)


def _refusing_panics(
    function: Callable[Arguments, Tokens], *arguments: Arguments.args, **options: Arguments.kwargs
) -> Tokens:
    """Call a function; where it makes the library ``tokenizers`` panic, refuse the input.

    It comes of a pattern of the checkpoint that finds no end on this text, above all.

    Raises:
        InputFails: The tokenizer panics.
    """
    try:
        with panics_as_errors():
            return function(*arguments, **options)
    except RustPanic as error:
        raise InputFails(f"the model's tokenizer fails on this input: {error}") from error
