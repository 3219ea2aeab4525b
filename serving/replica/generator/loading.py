"""Opens one variant of a generator and takes its first steps."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from functools import partial

from serving.artifacts import Artifact
from serving.config import ModelConfig, ServerConfig, VariantConfig
from serving.generator import SlotGenerator
from serving.machine.cores import available_cores
from serving.machine.device import instructions_of
from serving.metrics import DraftMetrics, GeneratorMetrics, Labels, ReplicaMetrics
from serving.recipes import RECIPES
from serving.replica.generator.draft import Draft
from serving.replica.generator.local_generator import LocalGenerator
from serving.replica.loaded_variant import STUCK_AFTER_DEADLINES, LoadedVariant
from serving.runtimes import RUNTIMES
from serving.seams import (
    GREEDY,
    Cores,
    Description,
    DeviceName,
    DraftDescription,
    GenerationTask,
    GeneratorEngine,
    OpenGeneratorRequest,
    TokenRequest,
)
from serving.tasks import TASKS

FIRST_PROMPT_TOKENS = 32
FIRST_TOKENS = 4


async def load_generator(
    model: ModelConfig,
    variant: VariantConfig,
    device: DeviceName,
    artifact: Artifact,
    server: ServerConfig,
    replica: str,
    cores: Cores,
    draft: Draft | None = None,
) -> LoadedVariant:
    """Open and wire; see ``serving.replica.loading.load_variant``.

    The engine makes the thread that runs its kernels, those of ``draft`` too; none runs in another.
    """
    started = time.perf_counter()
    task, engine = await open_generator(model, variant, device, artifact, server, cores, draft)
    load_seconds = time.perf_counter() - started
    replica_metrics = ReplicaMetrics(Labels(model.name, variant.name, model.task), replica)
    metrics = GeneratorMetrics(replica_metrics, engine.load)
    engine.observe_steps(metrics.observe_step)
    if isinstance(engine, SlotGenerator) and draft is not None:
        engine.observe_drafts(DraftMetrics(replica_metrics).observe)
    describe = partial(_describe, engine, variant, artifact, instructions_of(device), load_seconds)
    replica_metrics.set_info(variant, describe(), is_reference=variant.name == model.reference)
    replica_metrics.set_queue_limit(variant.max_queued_requests)
    backend = LocalGenerator(
        model.name,
        task,
        engine,
        variant.max_running_requests + variant.max_queued_requests,
        metrics,
        describe,
    )
    return LoadedVariant(backend, replica_metrics, engine.check_health, engine.close)


async def open_generator(
    model: ModelConfig,
    variant: VariantConfig,
    device: DeviceName,
    artifact: Artifact,
    server: ServerConfig,
    cores: Cores,
    draft: Draft | None,
) -> tuple[GenerationTask, GeneratorEngine]:
    """Open task and engine of one variant in the running event loop, and take first steps.

    Raises:
        ConfigError: The machine cannot run the variant.
    """
    task, engine = await asyncio.to_thread(
        _open, model, variant, device, artifact, server, cores, draft
    )
    await _take_first_steps(task, engine)
    return task, engine


def _open(
    model: ModelConfig,
    variant: VariantConfig,
    device: DeviceName,
    artifact: Artifact,
    server: ServerConfig,
    cores: Cores,
    draft: Draft | None,
) -> tuple[GenerationTask, GeneratorEngine]:
    task: GenerationTask = TASKS[model.task].open(artifact.task_folder, model.max_tokens)
    asked = OpenGeneratorRequest(
        folder=artifact.weights_folder,
        recipe=variant.recipe,
        options=RECIPES[variant.recipe].options(**variant.options),
        device=device,
        threads=variant.threads or available_cores(),
        cores=cores,
        max_running=variant.max_running_requests,
        max_waiting=variant.max_queued_requests,
        max_tokens=task.max_tokens,
        stuck_after_s=STUCK_AFTER_DEADLINES * server.request_timeout_s,
        kv_cache=variant.kv_cache,
    )
    runtime = RUNTIMES[variant.runtime]
    if draft is not None:
        assert variant.draft is not None
        assert runtime.open_decoder is not None  # or the plan would have refused the draft
        engine = SlotGenerator(
            partial(runtime.open_decoder, asked),
            cores,
            asked.max_waiting,
            stuck_after_s=asked.stuck_after_s,
            make_drafter=partial(draft.open, asked, variant.draft),
        )
        return task, engine
    assert runtime.open_generator is not None  # or the plan would have refused the variant
    return task, runtime.open_generator(asked)


async def _take_first_steps(task: GenerationTask, engine: GeneratorEngine) -> None:
    """Have the engine allocate what it allocates only once, before a request waits for it."""
    length = min(FIRST_PROMPT_TOKENS, engine.max_tokens - FIRST_TOKENS)
    prompt = (task.encode_prompt("a") * length)[:length]
    request = TokenRequest(prompt, FIRST_TOKENS, frozenset(), GREEDY)
    async with aclosing(engine.generate(request)) as tokens:
        async for _ in tokens:
            pass


def _describe(
    engine: GeneratorEngine,
    variant: VariantConfig,
    artifact: Artifact,
    isa: str,
    load_seconds: float,
) -> Description:
    footprint = engine.footprint()
    return Description(
        artifact=artifact.id,
        device=engine.device,
        isa=isa,
        weights_bytes=footprint.weights_bytes,
        disk_bytes=artifact.size,
        resident_bytes=footprint.resident_bytes,
        private_bytes=footprint.private_bytes,
        peak_bytes=footprint.peak_bytes,
        load_seconds=load_seconds,
        max_tokens=engine.max_tokens,
        width=0,
        labels=(),
        kv_cache_bytes=engine.load().kv_cache_bytes,
        draft=_describe_draft(engine, variant),
        prepared_agreement=artifact.manifest.agreement,
    )


def _describe_draft(engine: GeneratorEngine, variant: VariantConfig) -> DraftDescription | None:
    if variant.draft is None or not isinstance(engine, SlotGenerator):
        return None
    counts = engine.drafted
    return DraftDescription(
        variant=variant.draft.variant,
        tokens=variant.draft.tokens,
        accepted=counts.accepted,
        rejected=counts.rejected,
        unread=counts.unread,
        acceptance=counts.acceptance,
    )
