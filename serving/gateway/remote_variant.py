"""The remote backend: forwards a request to a variant's replicas through its Serve handle."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, cast

from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError, RequestCancelledError
from ray.serve.handle import DeploymentResponseGenerator

from serving.errors import DeadlineExceeded, InternalError, NotReady, RequestError
from serving.gateway.cluster import Cluster
from serving.gateway.latencies import Latencies
from serving.gateway.timed_backend import MeasuredBackend
from serving.seams import (
    Backend,
    Description,
    GenerationChunk,
    GenerationRequest,
    GenerationSummary,
    InferenceRequest,
    Outcome,
    ScoreRequest,
    TokenLogprob,
    VariantStatus,
)
from serving.serve_application import replica_call

logger = logging.getLogger("ray.serve.quantserve")

RETRY_PAUSE_S = 0.1
"""Between two tries after a replica died; Ray Serve needs a moment to see it."""

SHORTEST_TIMEOUT_S = 0.001

Item = GenerationChunk | GenerationSummary | RequestError
"""What a replica sends; an error, as its last item, is expected and therefore a value."""


class RemoteBackend:
    """One variant, reached over its handle.

    A request whose replica died is sent again, to another replica or to the replacement, until
    its deadline: inference changes nothing, so answering twice does no harm. Generation is sent
    again only as long as nothing of its answer has come.
    """

    def __init__(self, cluster: Cluster, model: str, variant: str) -> None:
        self._cluster = cluster
        self._model = model
        self._variant = variant

    async def infer(self, request: InferenceRequest) -> Outcome:
        """Answer every text of ``request``; see ``Backend.infer``."""
        return cast(Outcome, await self._ask("infer", request))

    async def score(self, request: ScoreRequest) -> tuple[TokenLogprob, ...]:
        """Score each token of the continuation; see ``Backend.score``."""
        return cast(tuple[TokenLogprob, ...], await self._ask("score", request))

    async def stream(
        self, request: GenerationRequest
    ) -> AsyncGenerator[GenerationChunk | GenerationSummary, None]:
        """Generate; see ``Backend.stream``."""
        deadline = _now() + request.timeout_s
        call, item = await self._begin(request, deadline)
        # An ``asyncio.timeout`` must not span a yield: it would interrupt the consumer.
        timer = asyncio.get_running_loop().call_at(deadline, call.cancel)
        try:
            while not isinstance(item, RequestError):
                yield item
                item = await _next(call)
            raise item
        except StopAsyncIteration:
            return
        except RequestCancelledError:
            raise DeadlineExceeded(f"not finished within {request.timeout_s:g} s") from None
        except RayActorError:
            raise self._died() from None
        finally:
            timer.cancel()
            call.cancel()

    async def describe(self) -> Description:
        """Say what one of the replicas holds; see ``Backend.describe``."""
        await self._cluster.require_ready(self._model, self._variant)
        return await self._cluster.describe(self._model, self._variant)

    async def _ask(self, method: str, request: InferenceRequest | ScoreRequest) -> Any:
        """Call a method that answers in one piece; raise the error that a replica returns."""
        deadline = _now() + request.timeout_s
        try:
            async with asyncio.timeout(request.timeout_s):
                await self._cluster.require_ready(self._model, self._variant)
                return await self._ask_until(deadline, method, request)
        except TimeoutError:
            raise DeadlineExceeded(f"no answer within {request.timeout_s:g} s") from None

    async def _ask_until(
        self, deadline: float, method: str, request: InferenceRequest | ScoreRequest
    ) -> Any:
        handle = await self._cluster.handle(self._model, self._variant)
        while True:
            try:
                with replica_call():
                    answer = await getattr(handle, method).remote(
                        replace(request, timeout_s=_until(deadline))
                    )
            except RayActorError:
                await self._pause_after_death()
                continue
            except DeploymentUnavailableError:
                raise self._given_up() from None
            if isinstance(answer, RequestError):
                raise answer
            return answer

    async def _begin(
        self, request: GenerationRequest, deadline: float
    ) -> tuple[DeploymentResponseGenerator[Item], Item]:
        """Return a call and its first item.

        That is the first token of a stream; otherwise it is a whole choice, and the replica alone
        can know whether its first token came in time.
        """
        first_token_deadline = _now() + request.first_token_timeout_s
        timeout_s = request.first_token_timeout_s if request.stream else request.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._cluster.require_ready(self._model, self._variant)
                return await self._begin_until(first_token_deadline, deadline, request)
        except TimeoutError:
            what = "no first token" if request.stream else "not finished"
            raise DeadlineExceeded(f"{what} within {timeout_s:g} s") from None

    async def _begin_until(
        self, first_token_deadline: float, deadline: float, request: GenerationRequest
    ) -> tuple[DeploymentResponseGenerator[Item], Item]:
        handle = await self._cluster.handle(self._model, self._variant)
        streaming = handle.options(stream=True)
        while True:
            remaining = replace(
                request,
                first_token_timeout_s=_until(first_token_deadline),
                timeout_s=_until(deadline),
            )
            call = cast(
                DeploymentResponseGenerator[Item],
                streaming.stream.remote(remaining),
            )
            try:
                return call, await _next(call)
            except RayActorError:
                if _now() > first_token_deadline:
                    raise (TimeoutError() if request.stream else self._died()) from None
                await self._pause_after_death()
            except DeploymentUnavailableError:
                raise self._given_up() from None
            except BaseException:
                call.cancel()
                raise

    async def _pause_after_death(self) -> None:
        logger.warning("a replica of %s:%s died; retrying", self._model, self._variant)
        await asyncio.sleep(RETRY_PAUSE_S)

    def _died(self) -> InternalError:
        return InternalError(
            f"the replica of {self._model}:{self._variant} died in the middle of the answer; "
            "send the request again"
        )

    def _given_up(self) -> NotReady:
        return NotReady(
            f"{self._model}:{self._variant} has no replica, and Ray Serve has given up to start one"
        )


class RemoteVariants:
    """``Backends`` of the gateway.

    Args:
        cluster: Where the replicas are.
        latencies: Learns how long requests take; None if nobody wants to know.
    """

    def __init__(self, cluster: Cluster, latencies: Latencies | None = None) -> None:
        self._cluster = cluster
        self._latencies = latencies

    def backend(self, model: str, variant: str) -> Backend:
        """Return a backend for the variant."""
        remote = RemoteBackend(self._cluster, model, variant)
        if self._latencies is None:
            return remote
        return MeasuredBackend(remote, self._latencies, model, variant)

    async def statuses(self) -> list[VariantStatus]:
        """State of every configured variant."""
        return await self._cluster.statuses()


async def _next(call: DeploymentResponseGenerator[Any]) -> Item:
    """Wait for a call's next item.

    Raises:
        StopAsyncIteration: There is none.
        RayActorError: The replica died, or gave the call up.
    """
    with replica_call():
        item: Item = await anext(call)
    return item


def _now() -> float:
    return asyncio.get_running_loop().time()


def _until(deadline: float) -> float:
    return max(deadline - _now(), SHORTEST_TIMEOUT_S)
