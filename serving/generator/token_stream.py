"""The consumer's end of one sequence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from serving.errors import RequestError
from serving.generator.sequence_job import Outbox
from serving.seams import GeneratedToken


class TokenStream(AsyncIterator[GeneratedToken]):
    """Yields the tokens of one sequence, up to its last or to the error that ended it.

    The sequence is cancelled when the stream is closed, when a task that waits for the next token
    is cancelled, and when the stream is dropped.

    Args:
        outbox: Filled in the consumer's event loop; holds at most one item per new token.
        cancel: Ends the sequence's work; called in any thread, and only while it has not ended.
    """

    def __init__(self, outbox: Outbox, cancel: Callable[[], None]) -> None:
        self._outbox = outbox
        self._cancel = cancel
        self._is_open = True

    async def __anext__(self) -> GeneratedToken:
        """Wait for the next token.

        Raises:
            RequestError: What ended the sequence before its time.
        """
        if not self._is_open:
            raise StopAsyncIteration
        try:
            item = await self._outbox.get()
        except asyncio.CancelledError:
            self._close()
            raise
        if item is None:
            raise StopAsyncIteration
        if isinstance(item, RequestError):
            self._is_open = False
            raise item
        self._is_open = item.finish is None
        return item

    async def aclose(self) -> None:
        """End the sequence, wherever it is; a task that waits for its next token gets no more."""
        if self._is_open:
            self._close()
            self._outbox.put_nowait(None)

    def __del__(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._cancel()
