"""Calls to another Serve application: its handle, and a call that was given up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray import serve
from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle


class Application:
    """One application, looked up when its handle is first needed.

    The look-up asks Ray Serve's controller, and waits for it in a thread. There is one at a time,
    however many callers wait for it or lose patience; one that failed is begun again.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._finding: asyncio.Task[DeploymentHandle[Any]] | None = None
        self._methods: dict[tuple[str, bool], DeploymentHandle[Any]] = {}

    @property
    def is_found(self) -> bool:
        """Whether the handle is known, so that nobody has to wait for it."""
        return self._finding is not None and self._finding.done() and not self._has_failed

    async def handle(self) -> DeploymentHandle[Any]:
        """Return the handle.

        Raises:
            RayServeException: There is no such application.
            RayError: The controller does not answer.
        """
        if self._finding is None or self._has_failed:
            self._finding = asyncio.create_task(asyncio.to_thread(serve.get_app_handle, self._name))
        return await asyncio.shield(self._finding)

    async def method(self, name: str, *, stream: bool = False) -> DeploymentHandle[Any]:
        """Return the handle of one method, whose ``remote`` calls it; errors as of ``handle``.

        It is made once: an attribute of the handle would be made anew for each call.

        Args:
            name: Of the method.
            stream: Whether its answer comes in pieces.
        """
        if (name, stream) not in self._methods:
            handle = await self.handle()
            self._methods[name, stream] = handle.options(
                method_name=name,
                stream=stream,
                # What travels is all defined in modules; cloudpickle would look at it in Python.
                request_serialization="pickle",
                response_serialization="pickle",
            )
        return self._methods[name, stream]

    async def ask_all(self, method: str, *arguments: object, within_s: float) -> list[Any]:
        """What every replica answers, without those that fail or are silent for so long.

        Raises:
            TimeoutError: The controller does not say which there are.
            RayServeException: There is no such application.
            RayError: The controller does not answer.
        """
        async with asyncio.timeout(within_s):
            handle = await self.handle()
            # ``results_async`` would have no answer at all for the sake of one replica that hangs.
            calls = await handle.broadcast(method, *arguments)._fetch_replica_results_async()
        answers = await asyncio.gather(
            *(asyncio.wait_for(call.get_async(), within_s) for call in calls),
            return_exceptions=True,
        )
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    @property
    def _has_failed(self) -> bool:
        task = self._finding
        return task is not None and task.done() and task.exception() is not None


@contextmanager
def replica_call() -> Iterator[None]:
    """Wait for a replica inside.

    Raises:
        RayActorError: The replica gave the call up. Ray Serve raises ``CancelledError`` for that,
            as if the caller itself were cancelled, which would go without a word.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RayActorError(error_msg="the replica gave the call up") from None
