"""Opens one variant of a generator and takes its first steps."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from functools import partial

from serving.artifacts import Artifact
from serving.config import ModelConfig, ServerConfig, VariantConfig
from serving.machine.cores import available_cores
from serving.machine.device import instructions_of
from serving.metrics import GeneratorMetrics, Labels, ReplicaMetrics
from serving.recipes import RECIPES
from serving.replica.generator.local_generator import LocalGenerator
from serving.replica.loaded_variant import STUCK_AFTER_DEADLINES, LoadedVariant
from serving.runtimes import RUNTIMES
from serving.seams import (
    GREEDY,
    Cores,
    Description,
    DeviceName,
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
) -> LoadedVariant:
    """Open and wire; see ``serving.replica.loading.load_variant``.

    The engine makes the thread that runs its kernels; none runs in another.
    """
    started = time.perf_counter()
    task, engine = await asyncio.to_thread(_open, model, variant, device, artifact, server, cores)
    await _take_first_steps(task, engine)
    load_seconds = time.perf_counter() - started
    replica_metrics = ReplicaMetrics(Labels(model.name, variant.name, model.task), replica)
    metrics = GeneratorMetrics(replica_metrics, engine.load)
    engine.observe_steps(metrics.observe_step)
    describe = partial(_describe, engine, artifact, instructions_of(device), load_seconds)
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


def _open(
    model: ModelConfig,
    variant: VariantConfig,
    device: DeviceName,
    artifact: Artifact,
    server: ServerConfig,
    cores: Cores,
) -> tuple[GenerationTask, GeneratorEngine]:
    task: GenerationTask = TASKS[model.task].open(artifact.task_folder, model.max_tokens)
    open_generator = RUNTIMES[variant.runtime].open_generator
    assert open_generator is not None  # or the plan would have refused the variant
    engine = open_generator(
        OpenGeneratorRequest(
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
    )
    return task, engine


async def _take_first_steps(task: GenerationTask, engine: GeneratorEngine) -> None:
    """Have the engine allocate what it allocates only once, before a request waits for it."""
    length = min(FIRST_PROMPT_TOKENS, engine.max_tokens - FIRST_TOKENS)
    prompt = (task.encode_prompt("a") * length)[:length]
    request = TokenRequest(prompt, FIRST_TOKENS, frozenset(), GREEDY)
    async with aclosing(engine.generate(request)) as tokens:
        async for _ in tokens:
            pass


def _describe(
    engine: GeneratorEngine, artifact: Artifact, isa: str, load_seconds: float
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
    )
