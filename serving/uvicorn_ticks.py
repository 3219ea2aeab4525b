"""Lets uvicorn's servers look around once a second instead of ten times.

At each look a server asks whether it should end, and every tenth writes the date of its answers
anew. It has no setting for it, and a node has a server in every replica.
"""

from __future__ import annotations

import asyncio

import uvicorn

TICK_S = 1.0

_DATE_TICK = 0
"""uvicorn writes the date anew at ticks with a number that ten divides."""


def slow_down_uvicorn() -> None:
    """Change every server of this process that begins to serve from now on."""
    uvicorn.Server.main_loop = _main_loop  # type: ignore[assignment, method-assign]


async def _main_loop(server: uvicorn.Server) -> None:
    while not await server.on_tick(_DATE_TICK):  # noqa: ASYNC110
        await asyncio.sleep(TICK_S)
