"""The Ray Serve deployment of one variant."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TypeVar

from ray import serve

from serving.artifacts import ArtifactRequest, ArtifactStore, key_of
from serving.artifacts.ensuring import ensure_key
from serving.config import ModelConfig, ServerConfig, VariantConfig
from serving.errors import ConfigError, InternalError, MayPass, NotReady, RequestError
from serving.machine.cores import available_cores
from serving.metrics import EdgeMetrics, Labels, QualityDrops, exposition
from serving.replica.loaded_variant import LoadedVariant
from serving.replica.loading import load_variant
from serving.replica.loading_turn import loading_turn, open_turns
from serving.replica.quality_process import QualityProcess
from serving.replica.sample_sink import SENDER_REASONS, QueuedSink
from serving.replica.shadow import ShadowedEncoder, ShadowedGenerator
from serving.replica.single_variant import FailedBackend, SingleVariant
from serving.routes.api import build_replica_api
from serving.routes.catalog import served_variant
from serving.routes.edge import Edge
from serving.routes.services import Services
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
)
from serving.start_phases import note_phase
from serving.uvicorn_ticks import slow_down_uvicorn

logger = logging.getLogger("ray.serve.quantserve")

Answer = TypeVar("Answer")

LOAD_AGAIN_S = 60.0
"""A replica that could not load for a reason that may pass, such as a lack of memory, is replaced
after so long, and the next one tries again."""


@serve.ingress()
class Replica:
    """Holds one model in one variant; answers HTTP on the direct path and the gateway's calls."""

    # Ray Serve awaits it: the event loop that answers requests has to be there to load in.
    async def __init__(  # type: ignore[misc]
        self,
        model: ModelConfig,
        variant: VariantConfig,
        artifact: ArtifactRequest,
        store: Path,
        server: ServerConfig,
        draft: ArtifactRequest | None = None,
        reference: ArtifactRequest | None = None,
    ) -> None:
        slow_down_uvicorn()
        replica = serve.get_replica_context().replica_id.unique_id
        self._loaded: LoadedVariant | None = None
        self._drops: QualityDrops | None = None
        self._load_again_at = float("inf")
        self._name = model.name, variant.name
        backend: EncoderBackend | GeneratorBackend
        name = f"{model.name}:{variant.name}"
        try:
            self._loaded = await _load_in_turn(
                model, variant, artifact, store, server, replica, draft, reference
            )
            backend = self._shadowed(self._loaded.backend, model, variant.name, replica)
            load_seconds = (await backend.describe()).load_seconds
            logger.info("loaded %s in %.1f s", name, load_seconds)
        except Exception as error:  # whatever a checkpoint or a kernel raises
            logger.exception("%s failed to load", name)
            if variant.max_replicas > 1:
                # Beside healthy replicas it would attract requests, since it answers at once.
                raise
            reason = f"{name} failed to load: {type(error).__name__}: {error}"
            # What we refuse on purpose, the next replica would refuse as well.
            if not isinstance(error, ConfigError) or isinstance(error, MayPass):
                self._load_again_at = time.monotonic() + LOAD_AGAIN_S
            backend = FailedBackend(NotReady(reason))
        self._backends = SingleVariant(
            model.name,
            variant.name,
            backend,
            self._loaded.remark if self._loaded else lambda: None,
        )
        edge_metrics = self._edge_metrics = EdgeMetrics(replica)
        edge_metrics.start(Labels(model.name, variant.name, model.task))
        services = Services(
            catalog={model.name: served_variant(model, variant)},
            backends=self._backends,
            server=server,
            fixed=self._name,
        )
        self._edge = build_replica_api(services, edge_metrics)

    def __serve_build_asgi_app__(self) -> Edge:
        return self._edge

    async def infer(self, request: InferenceRequest) -> Outcome | RequestError:
        """Answer a call of the gateway; it may be for the other kind of engine.

        Expected errors are returned: raised, they would cross the process with a traceback and
        be logged as a failure.
        """
        return await _answer_or_error(lambda: self._backends.encoder(*self._name).infer(request))

    async def score(self, request: ScoreRequest) -> tuple[TokenLogprob, ...] | RequestError:
        """Likewise."""
        return await _answer_or_error(lambda: self._backends.generator(*self._name).score(request))

    async def tokens(self, request: TokensRequest) -> TokenizedText | RequestError:
        """Likewise."""
        return await _answer_or_error(lambda: self._backends.generator(*self._name).tokens(request))

    async def stream(
        self, request: GenerationRequest
    ) -> AsyncGenerator[GenerationChunk | GenerationSummary | RequestError, None]:
        """Answer a call of the gateway piece by piece; an expected error is the last item."""
        try:
            backend = self._backends.generator(*self._name)
            async with aclosing(backend.stream(request)) as items:
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
            return await self._backends.describe()
        except NotReady as failure:
            return failure

    def check_health(self) -> None:
        """Raise if Ray Serve should replace this replica."""
        if self._loaded is not None:
            self._loaded.check_health()
        elif time.monotonic() > self._load_again_at:
            raise RuntimeError("loading failed; another replica is to try again")

    def __del__(self) -> None:
        # Ray Serve calls it when it stops the replica; a constructor that raised has set nothing.
        if (loaded := getattr(self, "_loaded", None)) is not None:
            loaded.close()

    async def in_flight(self) -> int:
        """HTTP requests that this replica has not answered yet."""
        return self._edge.in_flight

    async def metrics(self) -> str:
        """Prometheus text of this replica."""
        if self._loaded is not None:
            self._loaded.metrics.set_description(await self._backends.describe())
        return await self.counts()

    async def counts(self) -> str:
        """The same with the memory of the last time: looking it up costs more than all the rest."""
        if self._loaded is None:
            return exposition([self._edge_metrics.registry])
        registries = [self._loaded.metrics.registry, self._edge_metrics.registry]
        if self._drops is not None:
            registries.append(self._drops.registry)
        return exposition(registries)

    def _shadowed(
        self,
        backend: EncoderBackend | GeneratorBackend,
        model: ModelConfig,
        variant: str,
        replica: str,
    ) -> EncoderBackend | GeneratorBackend:
        """Let answers be sampled, unless there is nothing to compare them with."""
        shadow = model.quality.shadow
        if variant == model.reference or not shadow.rate:
            return backend
        self._drops = QualityDrops([model.name], replica, SENDER_REASONS)
        on_drop = partial(self._drops.count, model.name)
        sink = QueuedSink(shadow, QualityProcess().send, on_drop)
        if isinstance(backend, EncoderBackend):
            return ShadowedEncoder(backend, sink, model.name, variant)
        return ShadowedGenerator(backend, sink, model.name, variant)


async def _load_in_turn(
    model: ModelConfig,
    variant: VariantConfig,
    artifact: ArtifactRequest,
    store: Path,
    server: ServerConfig,
    replica: str,
    draft: ArtifactRequest | None,
    reference: ArtifactRequest | None,
) -> LoadedVariant:
    """Make what is missing, then load when it is this replica's turn; tell how far it is."""
    note = partial(note_phase, serve.get_replica_context().app_name)
    note("waiting")
    found = ArtifactStore(store)
    # Outside of the turn: making an artifact takes minutes.
    is_prepared = partial(note, "preparing")
    for wanted in (artifact,) if draft is None else (artifact, draft):
        key = await asyncio.to_thread(key_of, wanted, found)
        await asyncio.to_thread(
            ensure_key, wanted, key, found, on_wait=is_prepared, on_start=is_prepared
        )
    note("waiting")
    async with loading_turn(open_turns(), available_cores()):
        note("loading")
        return await load_variant(
            model, variant, artifact, store, server, replica, draft, reference
        )


async def _answer_or_error(ask: Callable[[], Awaitable[Answer]]) -> Answer | RequestError:
    try:
        return await ask()
    except RequestError as error:
        return error
    except Exception:
        logger.exception("a request of the gateway failed")
        return InternalError("internal error; see the log of the replica")
