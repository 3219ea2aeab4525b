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

    Each variant is looked at by itself: one that is busy does not hold up the others.

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
        variants = self._assessment.reference_first
        await asyncio.gather(*(self._keep_looking(variant) for variant in variants))

    def settle(self) -> None:
        """Wait no longer for what is still loading."""
        self._is_settled = True

    async def look(self, variant: str) -> None:
        """Probe a variant if it is new, once nothing is loading and the reference is done."""
        assessment = self._assessment
        states = await self._deployments.states()
        if all(state.running or state.failed for state in states.values()):
            self.settle()
        state = states[assessment.model, variant]
        is_done = assessment.deployed_at(variant) == state.deployed_at
        if is_done or not self._is_settled or not _is_up(state):
            return
        assessment.outdate(variant)
        if not self._may_be_probed(variant, states):
            return
        reference_at = assessment.deployed_at(assessment.reference)
        try:
            await self._deployments.require_ready(assessment.model, variant)
            probed = await assessment.judge.probe(variant)
        except Exception as error:  # whatever a broken variant answers belongs to it alone
            self._note_failure(variant, state.deployed_at, error)
            return
        now = (await self._deployments.states())[assessment.model, variant]
        is_same_reference = assessment.deployed_at(assessment.reference) == reference_at
        if now.deployed_at == state.deployed_at and is_same_reference:
            assessment.set_probed(variant, state.deployed_at, probed)

    async def _keep_looking(self, variant: str) -> None:
        while True:
            try:
                await self.look(variant)
            except Exception:  # Ray Serve's controller may be away for a while
                logger.exception("looking at %s:%s failed", self._assessment.model, variant)
            await asyncio.sleep(LOOK_S)

    def _may_be_probed(
        self, variant: str, states: Mapping[tuple[str, str], ApplicationState]
    ) -> bool:
        """Whether there is something to compare it with, and it has not just failed."""
        reference = self._assessment.reference
        if variant != reference:
            state = states[self._assessment.model, reference]
            is_probed = self._assessment.deployed_at(reference) == state.deployed_at
            if not (_is_up(state) and is_probed):
                return False
        now = asyncio.get_running_loop().time()
        return now >= self._not_before.get(variant, now)

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
            if self._num_failures[variant, deployed_at] >= MAX_FAILURES:
                self._assessment.set_failed(variant, deployed_at)


def _is_up(state: ApplicationState) -> bool:
    """Whether replicas of the last deployment run, and no others."""
    return bool(state.running) and not state.is_deploying
