"""What a broadcast of Ray Serve's comes back with."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

SILENT = TimeoutError("it never answers")
"""In place of an answer: the replica lives, and hangs."""


class FakeAnswer:
    """One replica's."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def get_async(self) -> Any:
        if self._answer is SILENT:
            await asyncio.Event().wait()
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer


class FakeBroadcast:
    """Each replica answers so; an error is raised."""

    def __init__(self, answers: Sequence[Any]) -> None:
        self._answers = answers

    async def _fetch_replica_results_async(self) -> list[FakeAnswer]:
        return [FakeAnswer(answer) for answer in self._answers]
