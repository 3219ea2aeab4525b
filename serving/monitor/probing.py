"""Finds out what is deployed, and has each artifact answer the probes once."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from serving.errors import CannotScore, InputFails, InternalError, NotReady, RequestError
from serving.gateway.cluster import NO_ANSWER
from serving.gateway.variant_status import ApplicationState
from serving.monitor.assessment import Assessment
from serving.seams import Description

logger = logging.getLogger("ray.serve.quantserve")

LOOK_S = 2.0
"""How often deployments are looked at while there is something to ask."""

WATCH_S = 10.0
"""How often they are looked at otherwise: each look has the controller tell all states anew."""

RETRY_S = 20.0
"""How long a variant that did not answer its probes is left alone."""

MAX_FAILURES = 3
"""A variant that is up and cannot answer its probes so many times is broken."""

SETTLE_S = 300.0
"""How long the probes wait for variants that are still loading: what takes the cores then would be
measured as the time of the others."""

QUIET_S = 45.0
"""How long generators are left alone after that: replicas find out meanwhile how many threads they
use, for which the machine has to be quiet, and a generator's probes keep it busy for minutes."""

States = Mapping[tuple[str, str], ApplicationState]
"""By model and variant."""


class Deployments(Protocol):
    """What is deployed; ``serving.gateway.cluster.Cluster`` is one."""

    async def states(self) -> States:
        """State of every configured variant."""

    async def describe(self, model: str, variant: str) -> Description:
        """What a replica of the variant says of itself; raises ``NotReady`` if it holds nothing."""


class Probing:
    """Looks for new deployments of one model's variants and probes them, the reference first.

    Each variant is looked at by itself: one that is busy does not hold up the others. What is known
    of an artifact is not asked again.

    Args:
        deployments: Where to look.
        assessment: What to fill.
        earlier: Other models', whose probes are asked before these.
        quiet_s: How long nothing is asked after all variants have come up.
    """

    def __init__(
        self,
        deployments: Deployments,
        assessment: Assessment,
        earlier: Sequence[Probing] = (),
        quiet_s: float = 0.0,
    ) -> None:
        self._deployments = deployments
        self._assessment = assessment
        self._earlier = earlier
        self._name = assessment.model
        self._reference = assessment.reference
        self._silent: set[str] = set()
        """Variants that run and do not say what they hold."""
        self._not_before: dict[str, float] = {}
        self._num_failures: Counter[tuple[str, float]] = Counter()
        self._cannot_be_judged: dict[tuple[str, float], str] = {}
        """By variant and the reference's deployment: why asking again would lead to nothing."""
        self._is_settled = False
        self._quiet_s = quiet_s
        self._was_quiet = quiet_s == 0

    async def run(self) -> None:
        """Look and probe until cancelled."""
        asyncio.get_running_loop().call_later(SETTLE_S, self.settle)
        variants = self._assessment.reference_first
        await asyncio.gather(*(self._keep_looking(variant) for variant in variants))

    def settle(self) -> None:
        """Wait no longer for what is still loading."""
        if not self._is_settled:
            self._is_settled = True
            asyncio.get_running_loop().call_later(self._quiet_s, self._end_quiet)

    def _end_quiet(self) -> None:
        self._was_quiet = True

    def is_due(self, states: States) -> bool:
        """Whether any variant is to be asked now, or as soon as its reference is done."""
        return any(self._is_due(variant, states) for variant in self._assessment.reference_first)

    async def look(self, variant: str) -> None:
        """Find out what is deployed of a variant, and ask it the probes that it has not answered.

        It is asked once nothing is loading any more, and the reference is done.
        """
        states = await self._deployments.states()
        if all(state.running or state.failed for state in states.values()):
            self.settle()
        state = states[self._name, variant]
        if _is_up(state) and self._assessment.deployed_at(variant) != state.deployed_at:
            self._assessment.outdate(variant)
        waits_for = await self._identify(variant, states)
        if not waits_for and self._assessment.next_step(variant) is not None:
            waits_for = self._what_it_waits_for(variant, states)
        self._assessment.set_waiting(variant, waits_for)
        if not waits_for:
            await self._probe(variant, state.deployed_at)

    async def _keep_looking(self, variant: str) -> None:
        while True:
            try:
                await self.look(variant)
            except Exception:  # Ray Serve's controller may be away for a while
                logger.exception("looking at %s:%s failed", self._name, variant)
            await asyncio.sleep(WATCH_S if self._is_done(variant) else LOOK_S)

    def _is_done(self, variant: str) -> bool:
        """Whether there is nothing to do until another deployment comes."""
        is_known = self._assessment.deployed_at(variant) is not None
        return is_known and self._assessment.next_step(variant) is None

    async def _identify(self, variant: str, states: States) -> str:
        """Find out which artifact is deployed; returns why that is not known yet, in words."""
        state, assessment = states[self._name, variant], self._assessment
        if not _is_up(state):
            return f"not ready: {state.reason or 'a deployment is under way'}"
        if assessment.deployed_at(variant) == state.deployed_at:
            return ""
        if not self._knows_reference(variant, states):
            return "waits for its reference"
        self._silent.add(variant)
        try:
            described = await self._deployments.describe(self._name, variant)
        except NotReady as error:
            return f"not ready: {error}"
        except NO_ANSWER:
            return "not ready: no replica says what it holds"
        self._silent.discard(variant)
        now = (await self._deployments.states())[self._name, variant]
        if not _is_up(now) or now.deployed_at != state.deployed_at:
            return "not ready: a deployment is under way"
        await assessment.identify(variant, state.deployed_at, described.artifact)
        return ""

    def _what_it_waits_for(self, variant: str, states: States) -> str:
        if not self._knows_reference(variant, states) or not self._assessment.is_comparable(
            variant
        ):
            return "waits for its reference"
        if reason := self._why_never(variant):
            return reason
        if not self._is_settled:
            return "waits until all variants are ready"
        if any(earlier.is_due(states) for earlier in self._earlier):
            return "waits for the probes of models that do not generate"
        if not self._was_quiet:
            return "waits until replicas have found out how many threads they use"
        if self._is_left_alone(variant):
            return "did not answer; it is asked again soon"
        return ""

    def _is_due(self, variant: str, states: States) -> bool:
        state = states[self._name, variant]
        if not _is_up(state) or variant in self._silent or self._is_left_alone(variant):
            return False
        is_known = self._assessment.deployed_at(variant) == state.deployed_at
        if is_known and (self._assessment.next_step(variant) is None or self._why_never(variant)):
            return False
        has_reference = self._knows_reference(variant, states)
        if has_reference and self._assessment.is_comparable(variant):
            return True
        return self._is_due(self._reference, states)

    def _knows_reference(self, variant: str, states: States) -> bool:
        """Whether it is known what the variant is compared with, and that is there."""
        if variant == self._reference:
            return True
        state = states[self._name, self._reference]
        return _is_up(state) and (
            self._assessment.deployed_at(self._reference) == state.deployed_at
        )

    def _why_never(self, variant: str) -> str:
        """Why the reference that is deployed can judge the variant in nothing; empty if it can."""
        judged_by = self._assessment.deployed_at(self._reference)
        return "" if judged_by is None else self._cannot_be_judged.get((variant, judged_by), "")

    def _is_left_alone(self, variant: str) -> bool:
        now = asyncio.get_running_loop().time()
        return now < self._not_before.get(variant, now)

    async def _probe(self, variant: str, deployed_at: float) -> None:
        """Ask one turn after the other, as long as the two deployments stand."""
        assessment = self._assessment
        reference_at = assessment.deployed_at(self._reference)
        while (number := assessment.next_step(variant)) is not None:
            try:
                step = await assessment.judge.probe(variant, number)
            except Exception as error:  # whatever a broken variant answers belongs to it alone
                await self._note_failure(variant, deployed_at, error)
                return
            now = (await self._deployments.states())[self._name, variant].deployed_at
            is_same = now == deployed_at == assessment.deployed_at(variant)
            if not is_same or assessment.deployed_at(self._reference) != reference_at:
                return
            await assessment.take_step(variant, step)
            self._num_failures.pop((variant, deployed_at), None)

    async def _note_failure(self, variant: str, deployed_at: float, error: Exception) -> None:
        logger.warning(
            "%s:%s did not answer its probes: %s",
            self._name,
            variant,
            error,
            exc_info=None if isinstance(error, RequestError) else error,
        )
        self._not_before[variant] = asyncio.get_running_loop().time() + RETRY_S
        judged_by = self._assessment.deployed_at(self._reference)
        if isinstance(error, CannotScore) and judged_by is not None:
            self._cannot_be_judged[variant, judged_by] = f"is not compared: {error}"
        if isinstance(error, InternalError | InputFails) and variant != self._reference:
            self._num_failures[variant, deployed_at] += 1
            if self._num_failures[variant, deployed_at] >= MAX_FAILURES:
                await self._assessment.set_failed(variant)


def _is_up(state: ApplicationState) -> bool:
    """Whether replicas of the last deployment run, and no others."""
    return bool(state.running) and not state.is_deploying
