"""What the routes call."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol, runtime_checkable

from serving.seams.catalog import Description, VariantStatus
from serving.seams.generation import (
    GenerationChunk,
    GenerationRequest,
    GenerationSummary,
    ScoreRequest,
    TokenizedText,
    TokensRequest,
)
from serving.seams.generator import TokenLogprob
from serving.seams.inference import InferenceRequest, Outcome


@runtime_checkable
class EncoderBackend(Protocol):
    """What the routes call of an encoder; local in a replica, remote in the gateway."""

    async def infer(self, request: InferenceRequest) -> Outcome:
        """Answer every input of ``request``.

        Raises:
            RequestError: InvalidField, QueueFull, NotReady or DeadlineExceeded.
        """

    async def describe(self) -> Description:
        """Say what is loaded.

        Raises:
            NotReady: Nothing is.
        """


@runtime_checkable
class GeneratorBackend(Protocol):
    """What the routes call of a generator; local in a replica, remote in the gateway."""

    def stream(
        self, request: GenerationRequest
    ) -> AsyncGenerator[GenerationChunk | GenerationSummary, None]:
        """Generate. Closing the generator ends the work.

        Chunks of several choices come in any order, then one summary.

        Raises:
            RequestError: InvalidField, QueueFull, NotReady or DeadlineExceeded before the first
                chunk; DeadlineExceeded or InternalError after it.
        """

    async def score(self, request: ScoreRequest) -> tuple[TokenLogprob, ...]:
        """Score each token of the continuation that follows something.

        Each score has the ``NUM_TRACED`` most probable tokens in its place.

        Raises:
            RequestError: InvalidField, QueueFull, NotReady or DeadlineExceeded.
        """

    async def tokens(self, request: TokensRequest) -> TokenizedText:
        """Say which tokens a text or a chat has, or what tokens say; the engine does nothing.

        Raises:
            RequestError: InvalidField, NotReady or DeadlineExceeded.
        """

    async def describe(self) -> Description:
        """Say what is loaded; see ``EncoderBackend.describe``."""


class Backends(Protocol):
    """Where the routes find the backend of a variant that the configuration names."""

    def encoder(self, model: str, variant: str) -> EncoderBackend:
        """Return the backend of a variant of a model whose kind is ``encoder``."""

    def generator(self, model: str, variant: str) -> GeneratorBackend:
        """Return the backend of a variant of a model whose kind is ``generator``."""

    async def statuses(self) -> list[VariantStatus]:
        """Return the state of every variant, in the order of the configuration."""
