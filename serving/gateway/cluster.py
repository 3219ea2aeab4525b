"""The gateway's view of the cluster: every variant's state, handle and metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from serving.errors import NotReady
from serving.gateway.serve_details import serve_applications
from serving.gateway.variant_status import (
    GATEWAY_APPLICATION,
    ApplicationState,
    application_name,
    application_state,
    application_states,
    starting,
)
from serving.seams import Description, VariantStatus
from serving.seams.catalog import Phase
from serving.serve_application import Application, replica_call
from serving.start_phases import read_phases

STATES_MAX_AGE_S = 0.5
"""Ray Serve's controller is asked for states at most this often."""

RETRY_AFTER_S = 5
"""Advice to a client whose variant is loading."""

CONTROLLER_ANSWER_S = 10.0
"""How long Ray Serve's controller may take to report the first states."""

NEWER_STATES_S = 2.0
"""How long it may take for newer ones; after that the last are the answer."""

REPLICA_ANSWER_S = 2.0
"""How long a replica may take to describe itself or to render its metrics."""


NO_ANSWER = (TimeoutError, RayError, RayServeException)
"""What a call to a process that is dying, broken or not there raises."""


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
        self._applications = {name: Application(application_name(*name)) for name in names}
        self._states: Mapping[tuple[str, str], ApplicationState] = {}
        self._num_gateways = 0
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._patient_until = 0.0
        self._seen_ready: set[tuple[str, str]] = set()

    async def method(
        self, model: str, variant: str, name: str, *, stream: bool = False
    ) -> DeploymentHandle[Any]:
        """Handle of a method of a variant that is deployed; see ``Application.method``."""
        return await self._applications[model, variant].method(name, stream=stream)

    async def require_ready(self, model: str, variant: str) -> None:
        """Raise ``NotReady`` unless the variant has been ready before.

        A replica that died is replaced within seconds, so requests for it wait for their
        deadline instead.
        """
        if (model, variant) in self._seen_ready:
            return
        status = await self.status(model, variant)
        if not status.ready:
            raise NotReady(
                f"{model}:{variant} is not ready: {status.reason}",
                retry_after_s=None if status.failed else RETRY_AFTER_S,
            )
        self._seen_ready.add((model, variant))

    async def statuses(self) -> list[VariantStatus]:
        """State of every variant, with what one of its replicas says of itself."""
        return await asyncio.gather(*(self.status(*name) for name in self._applications))

    async def describe(self, model: str, variant: str) -> Description:
        """What one replica of the variant says of itself.

        Raises:
            NotReady: The replica could not load the variant.
        """
        async with asyncio.timeout(REPLICA_ANSWER_S):
            describe = await self.method(model, variant, "describe")
            with replica_call():
                answer: Description | NotReady = await describe.remote()
        if isinstance(answer, NotReady):
            raise answer
        return answer

    async def status(self, model: str, variant: str) -> VariantStatus:
        """State of one variant, with what one of its replicas says of itself."""
        state = (await self.states())[model, variant]
        if not state.running:
            return VariantStatus(
                model, variant, False, state.failed, state.reason, 0, None, state.phase
            )
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

    async def metrics_pages(self, method: str = "metrics") -> list[VariantPages]:
        """Prometheus text of every replica that answers, for every variant.

        Replicas are asked while the controller is: under load either takes its time.

        Args:
            method: Of the replica; or ``counts``.

        Raises:
            NotReady: See ``states``.
        """
        asking = {
            name: asyncio.create_task(self._metrics(name, method))
            for name, application in self._applications.items()
            if application.is_found
        }
        states = await self.states()
        for name, state in states.items():
            if state.running and name not in asking:
                asking[name] = asyncio.create_task(self._metrics(name, method))
        pages = dict(zip(asking, await asyncio.gather(*asking.values()), strict=True))
        return [
            VariantPages(*name, state.running, pages[name] if state.running else ())
            for name, state in states.items()
        ]

    async def _metrics(self, name: tuple[str, str], method: str) -> tuple[str, ...]:
        try:
            return tuple(await self._applications[name].ask_all(method, within_s=REPLICA_ANSWER_S))
        except NO_ANSWER:
            return ()

    async def running_gateways(self) -> int:
        """How many gateways run.

        Raises:
            NotReady: See ``states``.
        """
        await self.states()
        return self._num_gateways

    @property
    def states_age_s(self) -> float:
        """Seconds since the controller said what ``states`` returns; infinity if it never did."""
        return time.monotonic() - self._read_at

    async def states(self) -> Mapping[tuple[str, str], ApplicationState]:
        """What Ray Serve knows of every configured variant, in the order of the configuration.

        It is at most half a second old, unless the controller does not answer: then it is what
        the controller said last.

        Raises:
            NotReady: The controller has never answered.
        """
        if self.states_age_s > STATES_MAX_AGE_S:
            try:
                await self._read_again()
            except NO_ANSWER as error:
                if not self._states:
                    raise NotReady(
                        "Ray Serve's controller does not answer", retry_after_s=RETRY_AFTER_S
                    ) from error
        return self._states

    async def _read_again(self) -> None:
        # One look-up, and one thread, at a time. All callers wait for it until the same moment, so
        # that one that hangs costs the later ones nothing.
        if self._reading is None or self._reading.done():
            patience_s = NEWER_STATES_S if self._states else CONTROLLER_ANSWER_S
            self._patient_until = asyncio.get_running_loop().time() + patience_s
            self._reading = asyncio.create_task(self._read())
        async with asyncio.timeout_at(self._patient_until):
            await asyncio.shield(self._reading)

    async def _read(self) -> None:
        applications = await asyncio.to_thread(serve_applications)
        names = list(self._applications)
        phases: Mapping[str, Phase] = {}
        if waited_for := starting(applications, (application_name(*name) for name in names)):
            phases = await asyncio.to_thread(read_phases, waited_for)
        self._states = application_states(applications, names, phases)
        gateway = applications.get(GATEWAY_APPLICATION)
        self._num_gateways = application_state(gateway).running if gateway else 0
        self._read_at = time.monotonic()
