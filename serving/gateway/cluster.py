"""The gateway's view of the cluster: every variant's state, handle and metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from serving.errors import NotReady
from serving.gateway.variant_status import (
    ApplicationState,
    application_name,
    application_states,
)
from serving.seams import Description, VariantStatus

STATES_MAX_AGE_S = 0.5
"""Ray Serve's controller is asked for states at most this often."""

RETRY_AFTER_S = 5
"""Advice to a client whose variant is loading."""

CONTROLLER_ANSWER_S = 10.0
"""How long Ray Serve's controller may take to report states."""

REPLICA_ANSWER_S = 2.0
"""How long a replica may take to describe itself or to render its metrics."""


NO_ANSWER = (TimeoutError, RayActorError, RayServeException)
"""What a call to a replica that is dying, or not there, raises."""


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


@dataclass(frozen=True, slots=True)
class VariantPages:
    """What was gathered of one variant for a scrape.

    Attributes:
        running: Replicas that run.
        pages: Prometheus text of those that answered.
    """

    model: str
    variant: str
    running: int
    pages: tuple[str, ...]


class Cluster:
    """Asks Ray Serve and the replicas.

    Args:
        names: Every configured (model, variant).
    """

    def __init__(self, names: Sequence[tuple[str, str]]) -> None:
        self._names = list(names)
        self._handles: dict[tuple[str, str], DeploymentHandle[Any]] = {}
        self._states: dict[tuple[str, str], ApplicationState] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._seen_ready: set[tuple[str, str]] = set()

    async def handle(self, model: str, variant: str) -> DeploymentHandle[Any]:
        """Handle of a variant that is deployed."""
        name = (model, variant)
        if name not in self._handles:
            # Asks the controller, and waits for it.
            self._handles[name] = await asyncio.to_thread(
                serve.get_app_handle, application_name(model, variant)
            )
        return self._handles[name]

    async def require_ready(self, model: str, variant: str) -> None:
        """Raise ``NotReady`` unless the variant has been ready before.

        A replica that died is replaced within seconds, so requests for it wait for their
        deadline instead.
        """
        if (model, variant) in self._seen_ready:
            return
        status = await self._status(model, variant)
        if not status.ready:
            raise NotReady(
                f"{model}:{variant} is not ready: {status.reason}",
                retry_after_s=None if status.failed else RETRY_AFTER_S,
            )
        self._seen_ready.add((model, variant))

    async def statuses(self) -> list[VariantStatus]:
        """State of every variant, with what one of its replicas says of itself."""
        return await asyncio.gather(*(self._status(*name) for name in self._names))

    async def describe(self, model: str, variant: str) -> Description:
        """What one replica of the variant says of itself.

        Raises:
            NotReady: The replica could not load the variant.
        """
        async with asyncio.timeout(REPLICA_ANSWER_S):
            handle = await self.handle(model, variant)
            with replica_call():
                answer: Description | NotReady = await handle.describe.remote()
        if isinstance(answer, NotReady):
            raise answer
        return answer

    async def _status(self, model: str, variant: str) -> VariantStatus:
        state = (await self.states())[model, variant]
        if not state.running:
            return VariantStatus(model, variant, False, state.failed, state.reason, 0, None)
        description, failed, reason = None, False, ""
        try:
            description = await self.describe(model, variant)
        except NotReady as failure:
            failed, reason = True, failure.message
        except NO_ANSWER:
            reason = f"no replica answered within {REPLICA_ANSWER_S:g} s"
        return VariantStatus(
            model, variant, description is not None, failed, reason, state.running, description
        )

    async def metrics_pages(self) -> list[VariantPages]:
        """Prometheus text of every replica that answers, for every variant."""
        states = await self.states()
        return await asyncio.gather(
            *(self._variant_pages(*name, states[name].running) for name in self._names)
        )

    async def _variant_pages(self, model: str, variant: str, running: int) -> VariantPages:
        pages = await self._metrics(model, variant) if running else []
        return VariantPages(model, variant, running, tuple(pages))

    async def _metrics(self, model: str, variant: str) -> list[str]:
        try:
            handle = await self.handle(model, variant)
            pages = await handle.broadcast("metrics").results_async(
                timeout_s=REPLICA_ANSWER_S, return_exceptions=True
            )
        except NO_ANSWER:
            pages = []
        # A replica that is just dying must not hide the others.
        return [page for page in pages if isinstance(page, str)]

    async def states(self) -> Mapping[tuple[str, str], ApplicationState]:
        """What Ray Serve knows of every configured variant, at most half a second old."""
        async with self._reading:
            if time.monotonic() - self._read_at > STATES_MAX_AGE_S:
                async with asyncio.timeout(CONTROLLER_ANSWER_S):
                    status = await asyncio.to_thread(serve.status)
                self._states = application_states(status.applications, self._names)
                self._read_at = time.monotonic()
        return self._states
