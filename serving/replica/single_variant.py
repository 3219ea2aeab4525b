"""The one variant that a replica holds, or could not load."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

from serving.errors import InvalidField, NotReady
from serving.seams import (
    Description,
    EncoderBackend,
    GenerationChunk,
    GenerationRequest,
    GenerationSummary,
    GeneratorBackend,
    InferenceRequest,
    Outcome,
    ScoreRequest,
    TokenizedText,
    TokenLogprob,
    TokensRequest,
    VariantStatus,
)


class FailedBackend:
    """The backend, of either kind, of a variant that could not be loaded.

    The replica stays up to say why on both paths; without one, the direct path would answer in
    Ray Serve's words.
    """

    def __init__(self, failure: NotReady) -> None:
        self._failure = failure

    async def infer(self, request: InferenceRequest) -> Outcome:
        """Raise the failure; likewise the others."""
        raise self._failure

    def stream(
        self, request: GenerationRequest
    ) -> AsyncGenerator[GenerationChunk | GenerationSummary, None]:
        """Raise the failure."""
        raise self._failure

    async def score(self, request: ScoreRequest) -> tuple[TokenLogprob, ...]:
        """Raise the failure."""
        raise self._failure

    async def tokens(self, request: TokensRequest) -> TokenizedText:
        """Raise the failure."""
        raise self._failure

    async def describe(self) -> Description:
        """Raise the failure."""
        raise self._failure


class SingleVariant:
    """``Backends`` of a replica.

    Args:
        model: Public name of the model; likewise ``variant``.
        backend: What answers, of one kind or (one that failed) of both.
        remark: What is remarkable of the variant on this machine, if anything is by now.
    """

    def __init__(
        self,
        model: str,
        variant: str,
        backend: EncoderBackend | GeneratorBackend,
        remark: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._remark = remark
        self._model = model
        self._variant = variant
        self._backend = backend
        self._encoder = backend if isinstance(backend, EncoderBackend) else None
        self._generator = backend if isinstance(backend, GeneratorBackend) else None

    def encoder(self, model: str, variant: str) -> EncoderBackend:
        """Return the one backend; the catalog lets no other name through.

        Raises:
            InvalidField: It is a generator's.
        """
        assert (model, variant) == (self._model, self._variant)
        if self._encoder is None:
            raise InvalidField(
                f"model {model!r} generates; use /v1/completions or /v1/chat/completions",
                param="model",
            )
        return self._encoder

    def generator(self, model: str, variant: str) -> GeneratorBackend:
        """Likewise.

        Raises:
            InvalidField: It is an encoder's.
        """
        assert (model, variant) == (self._model, self._variant)
        if self._generator is None:
            raise InvalidField(f"model {model!r} does not generate", param="model")
        return self._generator

    async def describe(self) -> Description:
        """Say what is loaded.

        Raises:
            NotReady: Nothing is.
        """
        return replace(await self._backend.describe(), remark=self._remark())

    async def statuses(self) -> list[VariantStatus]:
        """State of the one variant, as this replica sees it."""
        try:
            description = await self.describe()
        except NotReady as failure:
            return [
                VariantStatus(self._model, self._variant, False, True, failure.message, 1, None)
            ]
        return [VariantStatus(self._model, self._variant, True, False, "", 1, description)]
