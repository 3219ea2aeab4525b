"""Asks the quality process; see ``QualityBoard``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from serving.errors import InvalidField, NotReady
from serving.gateway.cluster import NO_ANSWER
from serving.seams import (
    QUALITY_APPLICATION,
    CourseStep,
    EvaluationProgress,
    Input,
    ModelQuality,
    VerdictChange,
)
from serving.serve_application import Application, replica_call

ANSWER_S = 2.0
RETRY_AFTER_S = 5


class RemoteQuality:
    """The quality process, reached over its handle.

    Whatever goes wrong there is ``NotReady`` here: the page of metrics is everybody's.
    """

    def __init__(self) -> None:
        self._application = Application(QUALITY_APPLICATION)

    async def report(self) -> tuple[ModelQuality, ...]:
        """Return everything that is known; see ``QualityBoard.report``."""
        report: tuple[ModelQuality, ...] = await self._ask("report")
        return report

    async def history(self, since: float) -> Mapping[str, tuple[VerdictChange, ...]]:
        """Return the changes of verdicts; see ``QualityBoard.history``."""
        changes: Mapping[str, tuple[VerdictChange, ...]] = await self._ask("history", since)
        return changes

    async def course(self, model: str, since: float, step_s: float) -> tuple[CourseStep, ...]:
        """Return how agreements went; see ``QualityBoard.course``."""
        steps: tuple[CourseStep, ...] = await self._ask("course", model, since, step_s)
        return steps

    async def inputs(self, model: str) -> tuple[Input, ...]:
        """Return the latest live inputs; see ``QualityBoard.inputs``."""
        answer: tuple[Input, ...] | InvalidField = await self._ask("inputs", model)
        if isinstance(answer, InvalidField):
            raise answer
        return answer

    async def evaluate(self, model: str) -> EvaluationProgress:
        """Start an evaluation; see ``QualityBoard.evaluate``."""
        answer: EvaluationProgress | InvalidField = await self._ask("evaluate", model)
        if isinstance(answer, InvalidField):
            raise answer
        return answer

    async def metrics_page(self) -> str | None:
        """Prometheus text of the quality process; None if it does not answer."""
        try:
            page: str = await self._ask("metrics")
        except NotReady:
            return None
        return page

    async def _ask(self, method: str, *arguments: object) -> Any:
        try:
            async with asyncio.timeout(ANSWER_S):
                handle = await self._application.handle()
                with replica_call():
                    return await getattr(handle, method).remote(*arguments)
        except NO_ANSWER as error:
            raise NotReady(
                "the process that compares variants does not answer; every other route works "
                "without it",
                retry_after_s=RETRY_AFTER_S,
            ) from error
