"""The Ray Serve deployment of one variant."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from functools import partial
from typing import TypeVar

from ray import serve

from serving.config import ModelConfig, ServerConfig, VariantConfig
from serving.errors import InternalError, NotReady, RequestError
from serving.metrics import EdgeMetrics, Labels, QualityDrops, exposition
from serving.replica.loaded_variant import Held
from serving.replica.loading import hold
from serving.replica.quality_process import QualityProcess
from serving.replica.sample_sink import SENDER_REASONS, QueuedSink
from serving.replica.shadow import ShadowedBackend
from serving.routes.api import build_replica_api
from serving.routes.edge import Edge
from serving.routes.services import Services
from serving.seams import (
    Backend,
    Checkpoint,
    Description,
    GenerationChunk,
    GenerationRequest,
    GenerationSummary,
    InferenceRequest,
    Outcome,
    ScoreRequest,
    ServedModel,
    TokenLogprob,
    VariantStatus,
)

logger = logging.getLogger("ray.serve.quantserve")

Answer = TypeVar("Answer")


class FailedBackend:
    """The backend of a variant that could not be loaded.

    The replica stays up to say why on both paths; without one, the direct path would answer in
    Ray Serve's words.
    """

    def __init__(self, failure: NotReady) -> None:
        self._failure = failure

    async def infer(self, request: InferenceRequest) -> Outcome:
        """Raise the failure."""
        raise self._failure

    def stream(
        self, request: GenerationRequest
    ) -> AsyncGenerator[GenerationChunk | GenerationSummary, None]:
        """Raise the failure."""
        raise self._failure

    async def score(self, request: ScoreRequest) -> tuple[TokenLogprob, ...]:
        """Raise the failure."""
        raise self._failure

    async def describe(self) -> Description:
        """Raise the failure."""
        raise self._failure


class SingleVariant:
    """``Backends`` of a replica: the one variant that it holds."""

    def __init__(self, model: str, variant: str, backend: Backend) -> None:
        self._model = model
        self._variant = variant
        self._backend = backend

    def backend(self, model: str, variant: str) -> Backend:
        """Return the one backend; the catalog lets no other name through."""
        assert (model, variant) == (self._model, self._variant)
        return self._backend

    async def statuses(self) -> list[VariantStatus]:
        """State of the one variant, as this replica sees it."""
        try:
            description = await self._backend.describe()
        except NotReady as failure:
            return [
                VariantStatus(self._model, self._variant, False, True, failure.message, 1, None)
            ]
        return [VariantStatus(self._model, self._variant, True, False, "", 1, description)]


@serve.ingress()
class Replica:
    """Holds one model in one variant; answers HTTP on the direct path and the gateway's calls."""

    # Ray Serve awaits it: the event loop that answers requests has to be there to load in.
    async def __init__(  # type: ignore[misc]
        self,
        model: ModelConfig,
        variant: VariantConfig,
        checkpoint: Checkpoint,
        server: ServerConfig,
    ) -> None:
        replica = serve.get_replica_context().replica_id.unique_id
        self._held: Held | None = None
        self._drops: QualityDrops | None = None
        self._backend: Backend
        name = f"{model.name}:{variant.name}"
        try:
            self._held = await hold(model, variant, checkpoint, server, replica)
            self._backend = self._shadowed(self._held.backend, model, variant.name, replica)
            load_seconds = (await self._backend.describe()).load_seconds
            logger.info("loaded %s in %.1f s", name, load_seconds)
        except Exception as error:  # whatever a checkpoint or a kernel raises
            logger.exception("%s failed to load", name)
            if variant.max_replicas > 1:
                # Beside healthy replicas it would attract requests, since it answers at once.
                raise
            reason = f"{name} failed to load: {type(error).__name__}: {error}"
            self._backend = FailedBackend(NotReady(reason))
        edge_metrics = self._edge_metrics = EdgeMetrics(replica)
        edge_metrics.start(Labels(model.name, variant.name, model.task))
        served = ServedModel(model.name, model.task, (variant.name,), variant.name, variant.name)
        services = Services(
            catalog={model.name: served},
            backends=SingleVariant(model.name, variant.name, self._backend),
            server=server,
            fixed=(model.name, variant.name),
        )
        self._edge = build_replica_api(services, edge_metrics)

    def __serve_build_asgi_app__(self) -> Edge:
        return self._edge

    async def infer(self, request: InferenceRequest) -> Outcome | RequestError:
        """Answer a call of the gateway.

        Expected errors are returned: raised, they would cross the process with a traceback and
        be logged as a failure.
        """
        return await _answer_or_error(self._backend.infer(request))

    async def score(self, request: ScoreRequest) -> tuple[TokenLogprob, ...] | RequestError:
        """Likewise."""
        return await _answer_or_error(self._backend.score(request))

    async def stream(
        self, request: GenerationRequest
    ) -> AsyncGenerator[GenerationChunk | GenerationSummary | RequestError, None]:
        """Answer a call of the gateway piece by piece; an expected error is the last item."""
        try:
            async with aclosing(self._backend.stream(request)) as items:
                async for item in items:
                    yield item
        except RequestError as error:
            yield error
        except Exception:
            logger.exception("a request of the gateway failed")
            yield InternalError("internal error; see the log of the replica")

    async def describe(self) -> Description | NotReady:
        """Say what is loaded, or why nothing is."""
        try:
            return await self._backend.describe()
        except NotReady as failure:
            return failure

    def check_health(self) -> None:
        """Raise if Ray Serve should replace this replica."""
        if self._held is not None:
            self._held.check_health()

    def __del__(self) -> None:
        # Ray Serve calls it when it stops the replica; a constructor that raised has set nothing.
        if (held := getattr(self, "_held", None)) is not None:
            held.close()

    async def in_flight(self) -> int:
        """HTTP requests that this replica has not answered yet."""
        return self._edge.in_flight

    async def metrics(self) -> str:
        """Prometheus text of this replica."""
        if self._held is None:
            return exposition([self._edge_metrics.registry])
        self._held.metrics.set_description(await self._backend.describe())
        registries = [self._held.metrics.registry, self._edge_metrics.registry]
        if self._drops is not None:
            registries.append(self._drops.registry)
        return exposition(registries)

    def _shadowed(
        self, backend: Backend, model: ModelConfig, variant: str, replica: str
    ) -> Backend:
        """Let answers be sampled, unless there is nothing to compare them with."""
        shadow = model.quality.shadow
        if variant == model.reference or not shadow.rate:
            return backend
        self._drops = QualityDrops([model.name], replica, SENDER_REASONS)
        on_drop = partial(self._drops.count, model.name)
        sink = QueuedSink(shadow, QualityProcess().send, on_drop)
        return ShadowedBackend(backend, sink, model.name, variant)


async def _answer_or_error(answer: Awaitable[Answer]) -> Answer | RequestError:
    try:
        return await answer
    except RequestError as error:
        return error
    except Exception:
        logger.exception("a request of the gateway failed")
        return InternalError("internal error; see the log of the replica")
