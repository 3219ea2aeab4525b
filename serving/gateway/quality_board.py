"""Asks the quality process; see ``QualityBoard``."""

from __future__ import annotations

import asyncio
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.handle import DeploymentHandle

from serving.errors import InvalidField, NotReady
from serving.gateway.cluster import NO_ANSWER, replica_call
from serving.seams import QUALITY_APPLICATION, EvaluationProgress, ModelQuality

ANSWER_S = 2.0
RETRY_AFTER_S = 5


class RemoteQuality:
    """The quality process, reached over its handle.

    Whatever goes wrong there is ``NotReady`` here: the page of metrics is everybody's.
    """

    def __init__(self) -> None:
        self._finding: asyncio.Task[DeploymentHandle[Any]] | None = None

    async def report(self) -> tuple[ModelQuality, ...]:
        """Return everything that is known; see ``QualityBoard.report``."""
        report: tuple[ModelQuality, ...] = await self._ask("report")
        return report

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
                handle = await self._handle()
                with replica_call():
                    return await getattr(handle, method).remote(*arguments)
        except (*NO_ANSWER, RayError) as error:
            raise NotReady(
                "the process that compares variants does not answer; every other route works "
                "without it",
                retry_after_s=RETRY_AFTER_S,
            ) from error

    async def _handle(self) -> DeploymentHandle[Any]:
        # Asks the controller, and waits for it. One look-up, and one thread, at a time, however
        # often the callers lose patience meanwhile.
        if self._finding is None or _has_failed(self._finding):
            self._finding = asyncio.create_task(
                asyncio.to_thread(serve.get_app_handle, QUALITY_APPLICATION)
            )
        return await asyncio.shield(self._finding)


def _has_failed(task: asyncio.Task[Any]) -> bool:
    return task.done() and task.exception() is not None
