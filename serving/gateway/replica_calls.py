"""Calls to the replicas of one variant through its Serve handle, whatever is asked of them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from serving.errors import DeadlineExceeded, NotReady, RequestError
from serving.gateway.cluster import Cluster
from serving.seams import Description, InferenceRequest, ScoreRequest, TokensRequest
from serving.serve_application import replica_call

logger = logging.getLogger("ray.serve.quantserve")

AskedAtOnce = InferenceRequest | ScoreRequest | TokensRequest
"""What is answered in one piece."""

RETRY_PAUSE_S = 0.1
"""Between two tries after a replica died; Ray Serve needs a moment to see it."""

SHORTEST_TIMEOUT_S = 0.001


class ReplicaCalls:
    """Reaches one variant.

    A request whose replica died is sent again, to another replica or to the replacement, until
    its deadline: inference changes nothing, so answering twice does no harm.
    """

    def __init__(self, cluster: Cluster, model: str, variant: str) -> None:
        self._cluster = cluster
        self._model = model
        self._variant = variant
        self.name = f"{model}:{variant}"

    async def ask(self, method: str, request: AskedAtOnce) -> Any:
        """Call a method that answers in one piece.

        Raises:
            RequestError: What a replica returns, NotReady or DeadlineExceeded.
        """
        deadline = now() + request.timeout_s
        try:
            async with asyncio.timeout(request.timeout_s):
                return await self._ask_until(deadline, method, request)
        except TimeoutError:
            raise DeadlineExceeded(f"no answer within {request.timeout_s:g} s") from None

    async def method(self, name: str, *, stream: bool = False) -> DeploymentHandle[Any]:
        """Return the handle of a method; see ``Application.method``.

        Raises:
            NotReady: The variant has never been ready.
        """
        await self._cluster.require_ready(self._model, self._variant)
        return await self._cluster.method(self._model, self._variant, name, stream=stream)

    async def describe(self) -> Description:
        """Say what one of the replicas holds; see ``EncoderBackend.describe``."""
        await self._cluster.require_ready(self._model, self._variant)
        return await self._cluster.describe(self._model, self._variant)

    async def pause_after_death(self) -> None:
        """Wait until it makes sense to ask another replica."""
        logger.warning("a replica of %s died; retrying", self.name)
        await asyncio.sleep(RETRY_PAUSE_S)

    def given_up(self) -> NotReady:
        """The error where Ray Serve will start no replica any more."""
        return NotReady(f"{self.name} has no replica, and Ray Serve has given up to start one")

    async def _ask_until(self, deadline: float, method: str, request: AskedAtOnce) -> Any:
        handle = await self.method(method)
        while True:
            try:
                with replica_call():
                    answer = await handle.remote(request)
            except RayActorError:
                await self.pause_after_death()
                request = replace(request, timeout_s=until(deadline))
                continue
            except DeploymentUnavailableError:
                raise self.given_up() from None
            if isinstance(answer, RequestError):
                raise answer
            return answer


def now() -> float:
    """Seconds by the event loop's clock."""
    return asyncio.get_running_loop().time()


def until(deadline: float) -> float:
    """Seconds that are left; never none, since a replica takes that for an error."""
    return max(deadline - now(), SHORTEST_TIMEOUT_S)
