"""The event loop's clock, which a test moves on: no deadline depends on the machine's load."""

from __future__ import annotations

import asyncio

from tests.unit.fakes.waiting import let_others_act


class LoopClock:
    """The clock of the loop that runs."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time
        self._ahead = 0.0
        vars(loop)["time"] = lambda: now() + self._ahead

    async def move(self, seconds: float) -> None:
        """Let a time pass at once, and everybody act whose waiting it ends."""
        self._ahead += seconds
        await let_others_act()
