"""How tests of concurrent code wait."""

from __future__ import annotations

import asyncio

MAX_WAIT_S = 10


async def let_others_act() -> None:
    """Let every task run until it waits for something that does not come by itself."""
    for _ in range(20):
        await asyncio.sleep(0)
