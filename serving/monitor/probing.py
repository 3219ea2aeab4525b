"""Has every variant answer the probes once after each deployment."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from typing import Protocol

from serving.errors import InternalError, RequestError
from serving.gateway.variant_status import ApplicationState
from serving.monitor.assessment import Assessment

logger = logging.getLogger("ray.serve.quantserve")

LOOK_S = 2.0
"""How often deployments are looked at."""

RETRY_S = 20.0
"""How long a variant that did not answer its probes is left alone."""

MAX_FAILURES = 3
"""A variant that is up and cannot answer its probes so many times is broken."""

SETTLE_S = 300.0
"""How long the probes wait for variants that are still loading: what takes the cores then would be
measured as the time of the others."""


class Deployments(Protocol):
    """What is deployed; ``serving.gateway.cluster.Cluster`` is one."""

    async def states(self) -> Mapping[tuple[str, str], ApplicationState]:
        """State of every configured variant."""

    async def require_ready(self, model: str, variant: str) -> None:
        """Raise ``NotReady`` unless the variant answers."""


class Probing:
    """Looks for new deployments of one model's variants and probes them, the reference first.

    Args:
        deployments: Where to look.
        assessment: What to fill.
    """

    def __init__(self, deployments: Deployments, assessment: Assessment) -> None:
        self._deployments = deployments
        self._assessment = assessment
        self._not_before: dict[str, float] = {}
        self._num_failures: Counter[tuple[str, float]] = Counter()
        self._is_settled = False

    async def run(self) -> None:
        """Look and probe until cancelled."""
        asyncio.get_running_loop().call_later(SETTLE_S, self.settle)
        while True:
            try:
                await self.look()
            except Exception:  # Ray Serve's controller may be away for a while
                logger.exception("looking at the deployments of %s failed", self._assessment.model)
            await asyncio.sleep(LOOK_S)

    def settle(self) -> None:
        """Wait no longer for what is still loading."""
        self._is_settled = True

    async def look(self) -> None:
        """Probe what was deployed since the last look, once nothing is loading any more."""
        states = await self._deployments.states()
        if all(state.running or state.failed for state in states.values()):
            self.settle()
        if not self._is_settled:
            return
        reference, *others = self._assessment.reference_first
        if await self._probe_if_new(reference):
            # One that is busy must not hold up the others.
            await asyncio.gather(*(self._probe_if_new(variant) for variant in others))

    async def _probe_if_new(self, variant: str) -> bool:
        """Probe a variant unless it is done; returns whether it is done now."""
        assessment = self._assessment
        state = await self._state(variant)
        if not state.running or state.is_deploying:
            return False
        if assessment.deployed_at(variant) == state.deployed_at:
            return True
        now = asyncio.get_running_loop().time()
        if now < self._not_before.get(variant, now):
            return False
        assessment.outdate(variant)
        try:
            await self._deployments.require_ready(assessment.model, variant)
            probed = await assessment.judge.probe(variant)
        except Exception as error:  # whatever a broken variant answers belongs to it alone
            self._note_failure(variant, state.deployed_at, error)
            return False
        if (await self._state(variant)).deployed_at != state.deployed_at:
            return False
        assessment.set_probed(variant, state.deployed_at, probed)
        return True

    async def _state(self, variant: str) -> ApplicationState:
        return (await self._deployments.states())[self._assessment.model, variant]

    def _note_failure(self, variant: str, deployed_at: float, error: Exception) -> None:
        name = f"{self._assessment.model}:{variant}"
        logger.warning(
            "%s did not answer its probes: %s",
            name,
            error,
            exc_info=None if isinstance(error, RequestError) else error,
        )
        self._not_before[variant] = asyncio.get_running_loop().time() + RETRY_S
        if isinstance(error, InternalError) and variant != self._assessment.reference:
            self._num_failures[variant, deployed_at] += 1
            if self._num_failures[variant, deployed_at] == MAX_FAILURES:
                self._assessment.set_failed(variant, deployed_at)
