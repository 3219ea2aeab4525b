"""The log lines of requests: written a moment later, many at once."""

from __future__ import annotations

import asyncio
import logging
import time
from contextvars import Context
from typing import Any
from urllib.parse import quote

from starlette.types import Scope

from serving.routes.record import Record

# A child of Ray Serve's logger: its handlers write to a rotated file per replica.
logger = logging.getLogger("ray.serve.quantserve")

WRITE_AFTER_S = 0.5
"""A process that is killed takes the lines of so long with it."""

MAX_WAITING = 256
"""So many lines are written at once, whatever the time."""


class RequestLog:
    """Notes a line for each request, with the time at which it was answered.

    A forward pass leaves the caches empty, and whatever runs between two passes pays for that:
    writing a line took a tenth of what a request cost the gateway. The second line of many that
    are written together costs little.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[float, tuple[Any, ...]]] = []

    def note(self, scope: Scope, record: Record, status: int, total_s: float) -> None:
        """Note what was answered, and how fast."""
        line = scope["method"], scope["path"], status, record, total_s
        self._waiting.append((time.time(), line))
        if len(self._waiting) >= MAX_WAITING:
            self.write()
        elif len(self._waiting) == 1:
            # Lines of many requests are written there, so it is in the context of none.
            loop = asyncio.get_running_loop()
            loop.call_later(WRITE_AFTER_S, self.write, context=Context())

    def write(self) -> None:
        """Write every line that is noted."""
        waiting, self._waiting = self._waiting, []
        if not logger.isEnabledFor(logging.INFO):
            return
        for at, line in waiting:
            record = logger.makeRecord(
                logger.name, logging.INFO, __file__, 0, _line(*line), (), None
            )
            record.created, record.msecs = at, at % 1 * 1e3
            logger.handle(record)


def _line(method: str, path: str, status: int, record: Record, total_s: float) -> str:
    labels = record.labels
    served = f" model={labels.model} variant={labels.variant}" if labels else ""
    phases = " ".join(f"{name}={s * 1e3:.2f}ms" for name, s in record.phases_of(total_s))
    # Quoted again: a decoded line break would forge a line.
    return f"{method} {quote(path)} {status}{served} {phases} id={record.request_id}"
