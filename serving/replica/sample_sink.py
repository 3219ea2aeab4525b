"""Sends samples of live requests to the quality process, and counts those that get lost."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable

from serving.config import ShadowConfig
from serving.quality.rate_limit import RateLimit
from serving.seams import DropReason, Sample

SENDER_REASONS: tuple[DropReason, ...] = ("over_limit", "queue_full", "unreachable")
"""Why a sample gets lost on this side."""

MAX_WAITING = 16
"""A trace of 128 tokens has 40 kB when it is sent; a text may be as long as a request."""

SEND_TIMEOUT_S = 5.0


class QueuedSink:
    """The ``SampleSink`` of a replica: a random share, so many a second, sent one by one.

    A task sends while there is something to send. Whatever happens to it, all that a sample can
    do is get lost.

    Args:
        shadow: The share and the limit.
        send: Hands one sample over; it may raise anything, and is cancelled after
            ``SEND_TIMEOUT_S``.
        on_drop: Told why a sample was lost.
        chance: Gives a random number in [0, 1).
        limit: Of samples a second; that of ``shadow`` if not given.
    """

    def __init__(
        self,
        shadow: ShadowConfig,
        send: Callable[[Sample], Awaitable[None]],
        on_drop: Callable[[DropReason], None],
        chance: Callable[[], float] = random.random,
        limit: RateLimit | None = None,
    ) -> None:
        self._rate = shadow.rate
        self._send = send
        self._on_drop = on_drop
        self._chance = chance
        self._limit = limit or RateLimit(shadow.max_per_second)
        self._waiting: deque[Sample] = deque()
        self._sender: asyncio.Task[None] | None = None

    def wants(self) -> bool:
        """Whether the request that has just come shall be sampled."""
        if self._chance() >= self._rate:
            return False
        if not self._limit.take():
            self._on_drop("over_limit")
            return False
        return True

    def offer(self, sample: Sample) -> None:
        """Queue a sample, or drop it where there is no room."""
        if len(self._waiting) >= MAX_WAITING:
            self._on_drop("queue_full")
            return
        self._waiting.append(sample)
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._send_all())

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                if not await self._is_sent(self._waiting.popleft()):
                    self._on_drop("unreachable")
        finally:
            self._sender = None

    async def _is_sent(self, sample: Sample) -> bool:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._send(sample)
        except Exception:  # whatever a process that dies or is not there makes of the call
            return False
        return True
