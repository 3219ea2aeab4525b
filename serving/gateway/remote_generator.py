"""The remote backend of a generator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
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


class RemoteGenerator:
    """Has a replica generate; the request is sent again only while nothing of its answer has come.

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
        call, piece = await self._begin(request, deadline)
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
        except RayActorError:
            raise self._died() from None
        finally:
            timer.cancel()
            call.cancel()

    async def _begin(
        self, request: GenerationRequest, deadline: float
    ) -> tuple[DeploymentResponseGenerator[Piece], Piece]:
        """Return a call and its first piece.

        That is the first token of a stream; otherwise it is a whole choice, and the replica alone
        can know whether its first token came in time.
        """
        first_token_deadline = now() + request.first_token_timeout_s
        timeout_s = request.first_token_timeout_s if request.stream else request.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await self._begin_until(first_token_deadline, deadline, request)
        except TimeoutError:
            what = "no first token" if request.stream else "not finished"
            raise DeadlineExceeded(f"{what} within {timeout_s:g} s") from None

    async def _begin_until(
        self, first_token_deadline: float, deadline: float, request: GenerationRequest
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
                if now() > first_token_deadline:
                    raise (TimeoutError() if request.stream else self._died()) from None
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
