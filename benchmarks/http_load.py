"""Clients that send the next request on the answer to the last one, over kept connections."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp


@dataclass(frozen=True, slots=True)
class Throughput:
    """What some clients got in a while.

    Attributes:
        requests: Answers, all of status 200.
        per_second: Their rate.
        p50_ms: Median time of one, at the client.
    """

    requests: int
    per_second: float
    p50_ms: float


def measure(
    url: str, bodies: Sequence[dict[str, Any]], connections: int, seconds: float
) -> Throughput:
    """Post ``bodies`` in turns from so many connections for about so many seconds."""
    return asyncio.run(_measure(url, bodies, connections, seconds))


async def _measure(
    url: str, bodies: Sequence[dict[str, Any]], connections: int, seconds: float
) -> Throughput:
    times: list[float] = []
    started = time.perf_counter()

    async def client(session: aiohttp.ClientSession, number: int) -> None:
        sent = number * 31
        while time.perf_counter() - started < seconds:
            begun = time.perf_counter()
            async with session.post(url, json=bodies[sent % len(bodies)]) as response:
                await response.read()
                assert response.status == 200, await response.text()
            times.append(time.perf_counter() - begun)
            sent += 1

    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(client(session, number) for number in range(connections)))
    elapsed = time.perf_counter() - started
    return Throughput(len(times), len(times) / elapsed, statistics.median(times) * 1e3)
