"""Whether the client is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from starlette.types import Receive


async def while_connected(receive: Receive, work: Coroutine[object, object, None]) -> None:
    """Run ``work`` to its end, or cancel it as soon as the client has gone.

    Returns once ``work`` has cleaned up, and raises what it raises.

    Args:
        receive: Gives ASGI messages after the request's body.
        work: Answers the request.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        has_gone = watching.done()
        watching.cancel()
        working.cancel()
        await asyncio.wait({working})
    if not (has_gone and working.cancelled()):
        working.result()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
