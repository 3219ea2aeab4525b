"""How long an answer may take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serving.errors import DeadlineExceeded


@asynccontextmanager
async def deadline(seconds: float, missing: str) -> AsyncIterator[None]:
    """Cancel the block after so many seconds.

    Raises:
        DeadlineExceeded: It was cancelled; the message is ``missing`` and the seconds.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise DeadlineExceeded(f"{missing} within {seconds:g} s") from None
