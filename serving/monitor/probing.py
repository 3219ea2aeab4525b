"""Has every variant answer the probes once after each deployment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Protocol

from serving.errors import RequestError
from serving.gateway.variant_status import ApplicationState
from serving.monitor.assessment import Assessment

logger = logging.getLogger("ray.serve.quantserve")

LOOK_S = 2.0
"""How often deployments are looked at."""

RETRY_S = 20.0
"""How long a variant that did not answer its probes is left alone."""

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
    """Looks for new deployments and probes them, one after the other.

    Args:
        deployments: Where to look.
        assessments: What to fill.
    """

    def __init__(self, deployments: Deployments, assessments: Iterable[Assessment]) -> None:
        self._deployments = deployments
        self._assessments = list(assessments)
        self._not_before: dict[tuple[str, str], float] = {}
        self._is_settled = False

    async def run(self) -> None:
        """Look and probe until cancelled."""
        asyncio.get_running_loop().call_later(SETTLE_S, self.settle)
        while True:
            try:
                await self.look()
            except Exception:  # Ray Serve's controller may be away for a while
                logger.exception("looking at the deployments failed")
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
        for assessment in self._assessments:
            for variant in assessment.reference_first:
                state = states[assessment.model, variant]
                is_probed = await self._probe_if_new(assessment, variant, state)
                if variant == assessment.reference and not is_probed:
                    break  # the others would be compared with nothing

    async def _probe_if_new(
        self, assessment: Assessment, variant: str, state: ApplicationState
    ) -> bool:
        """Probe a variant unless it is done; returns whether it is done now."""
        if not state.running:
            return False
        if assessment.deployed_at(variant) == state.deployed_at:
            return True
        name = (assessment.model, variant)
        now = asyncio.get_running_loop().time()
        if now < self._not_before.get(name, now):
            return False
        try:
            await self._deployments.require_ready(*name)
            assessment.reset(variant)
            probed = await assessment.judge.probe(variant)
        except RequestError as error:
            logger.warning("%s:%s did not answer its probes: %s", *name, error)
            self._not_before[name] = now + RETRY_S
            return False
        assessment.set_probed(variant, state.deployed_at, probed)
        return True
