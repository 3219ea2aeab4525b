"""The remote backend of a generator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError, RequestCancelledError
from ray.serve.handle import DeploymentResponseGenerator

from serving.errors import DeadlineExceeded, InternalError, RequestError
from serving.gateway.replica_calls import ReplicaCalls, now, until
from serving.seams import (
    Description,
    GenerationChunk,
    GenerationRequest,
    GenerationSummary,
    ScoreRequest,
    TokenizedText,
    TokenLogprob,
    TokensRequest,
)
from serving.serve_application import replica_call

Piece = GenerationChunk | GenerationSummary | RequestError
"""What a replica sends; an error, as its last piece, is expected and therefore a value."""

MOST_DEATHS = 3
"""Of replicas over one whole answer, beyond the time that a first token has: a request that ends
its replica must not end all that follow, as often as its deadline allows."""


class RemoteGenerator:
    """Has a replica generate; the request is sent again while its client has nothing of its answer.

    A whole answer, which is not streamed, is therefore begun again, too, if its replica dies.

    Args:
        calls: Reach the variant.
    """

    def __init__(self, calls: ReplicaCalls) -> None:
        self._calls = calls

    async def score(self, request: ScoreRequest) -> tuple[TokenLogprob, ...]:
        """Score each token of the continuation; see ``GeneratorBackend.score``."""
        return cast(tuple[TokenLogprob, ...], await self._calls.ask("score", request))

    async def tokens(self, request: TokensRequest) -> TokenizedText:
        """Have a replica tokenize; see ``GeneratorBackend.tokens``."""
        return cast(TokenizedText, await self._calls.ask("tokens", request))

    async def describe(self) -> Description:
        """Say what one of the replicas holds; see ``EncoderBackend.describe``."""
        return await self._calls.describe()

    async def stream(
        self, request: GenerationRequest
    ) -> AsyncGenerator[GenerationChunk | GenerationSummary, None]:
        """Generate; see ``GeneratorBackend.stream``."""
        deadline = now() + request.timeout_s
        retry_until = min(now() + request.first_token_timeout_s, deadline)
        if not request.stream:
            for piece in await self._whole(request, retry_until, deadline):
                yield piece
            return
        try:
            async with aclosing(self._pieces(request, retry_until, deadline)) as pieces:
                async for piece in pieces:
                    yield piece
        except RayActorError:
            raise self._died() from None

    async def _whole(
        self, request: GenerationRequest, retry_until: float, deadline: float
    ) -> list[GenerationChunk | GenerationSummary]:
        deaths = 0
        while True:
            try:
                async with aclosing(self._pieces(request, retry_until, deadline)) as pieces:
                    return [piece async for piece in pieces]
            except RayActorError:
                deaths += 1
                if deaths == MOST_DEATHS or now() >= deadline:
                    raise self._died() from None
            await self._calls.pause_after_death()

    async def _pieces(
        self, request: GenerationRequest, retry_until: float, deadline: float
    ) -> AsyncGenerator[GenerationChunk | GenerationSummary, None]:
        """What one replica answers; for a time, those that die before its first piece are nothing.

        Raises:
            RayActorError: It died in the middle, or the time is over.
        """
        call, piece = await self._begin(request, retry_until, deadline)
        # An ``asyncio.timeout`` must not span a yield: it would interrupt the consumer.
        timer = asyncio.get_running_loop().call_at(deadline, call.cancel)
        try:
            while not isinstance(piece, RequestError):
                yield piece
                piece = await _next(call)
            raise piece
        except StopAsyncIteration:
            return
        except RequestCancelledError:
            raise DeadlineExceeded(f"not finished within {request.timeout_s:g} s") from None
        finally:
            timer.cancel()
            call.cancel()

    async def _begin(
        self, request: GenerationRequest, retry_until: float, deadline: float
    ) -> tuple[DeploymentResponseGenerator[Piece], Piece]:
        """Return a call and its first piece.

        That is the first token of a stream; otherwise it is a whole choice, and the replica alone
        can know whether its first token came in time.
        """
        first_token_deadline = min(now() + request.first_token_timeout_s, deadline)
        until_then = first_token_deadline if request.stream else deadline
        try:
            async with asyncio.timeout_at(until_then):
                return await self._begin_until(first_token_deadline, retry_until, deadline, request)
        except TimeoutError:
            if request.stream:
                said = f"no first token within {request.first_token_timeout_s:g} s"
            else:
                said = f"not finished within {request.timeout_s:g} s"
            raise DeadlineExceeded(said) from None

    async def _begin_until(
        self,
        first_token_deadline: float,
        retry_until: float,
        deadline: float,
        request: GenerationRequest,
    ) -> tuple[DeploymentResponseGenerator[Piece], Piece]:
        streaming = await self._calls.method("stream", stream=True)
        while True:
            remaining = replace(
                request,
                first_token_timeout_s=until(first_token_deadline),
                timeout_s=until(deadline),
            )
            call = cast(
                DeploymentResponseGenerator[Piece],
                streaming.remote(remaining),
            )
            try:
                return call, await _next(call)
            except RayActorError:
                if now() > retry_until:
                    if request.stream:
                        raise TimeoutError from None
                    raise
                await self._calls.pause_after_death()
            except DeploymentUnavailableError:
                raise self._calls.given_up() from None
            except BaseException:
                call.cancel()
                raise

    def _died(self) -> InternalError:
        return InternalError(
            f"the replica of {self._calls.name} died in the middle of the answer; "
            "send the request again"
        )


async def _next(call: DeploymentResponseGenerator[Any]) -> Piece:
    """Wait for a call's next piece.

    Raises:
        StopAsyncIteration: There is none.
        RayActorError: The replica died, or gave the call up.
    """
    with replica_call():
        piece: Piece = await anext(call)
    return piece
