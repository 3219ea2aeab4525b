"""Loads one variant of a generator and takes its first steps."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from functools import partial

from serving.config import ModelConfig, ServerConfig, VariantConfig
from serving.metrics import GeneratorMetrics, Labels, ReplicaMetrics
from serving.replica.generator.local_generator import LocalGenerator
from serving.replica.loaded_variant import STUCK_AFTER_DEADLINES, Held
from serving.runtimes import get_variant
from serving.runtimes.torch.device import available_cores, choose_device, instructions_of
from serving.seams import (
    GREEDY,
    Checkpoint,
    Description,
    GenerationTask,
    GeneratorEngine,
    GeneratorRequest,
    TokenRequest,
)
from serving.tasks import load_generation_task

FIRST_PROMPT_TOKENS = 32
FIRST_TOKENS = 4


async def hold_generator(
    model: ModelConfig,
    variant: VariantConfig,
    checkpoint: Checkpoint,
    server: ServerConfig,
    replica: str,
) -> Held:
    """Load and wire; see ``serving.replica.loading.hold``.

    The engine makes the thread that runs its kernels; none runs in another.
    """
    started = time.perf_counter()
    task, engine = await asyncio.to_thread(_load, model, variant, checkpoint, server)
    await _take_first_steps(task, engine)
    load_seconds = time.perf_counter() - started
    replica_metrics = ReplicaMetrics(Labels(model.name, variant.name, model.task), replica)
    metrics = GeneratorMetrics(replica_metrics, engine.load)
    engine.observe_steps(metrics.observe_step)
    entry = get_variant(variant.name)
    isa = instructions_of(engine.device)
    replica_metrics.set_info(
        engine.device,
        entry.runtime,
        entry.recipe,
        isa,
        is_reference=variant.name == model.reference,
    )
    replica_metrics.set_queue_limit(variant.max_queued_requests)
    backend = LocalGenerator(
        model.name,
        task,
        engine,
        variant.max_running_requests + variant.max_queued_requests,
        metrics,
        partial(_describe, engine, isa, load_seconds),
    )
    return Held(backend, replica_metrics, engine.check_health, engine.close)


def _load(
    model: ModelConfig, variant: VariantConfig, checkpoint: Checkpoint, server: ServerConfig
) -> tuple[GenerationTask, GeneratorEngine]:
    task = load_generation_task(model.task, checkpoint, model.max_tokens)
    entry = get_variant(variant.name)
    engine = entry.load_generator(
        GeneratorRequest(
            checkpoint=checkpoint,
            device=choose_device(variant.device),
            threads=variant.threads or available_cores(),
            options=entry.options(**variant.options),
            max_running=variant.max_running_requests,
            max_waiting=variant.max_queued_requests,
            max_tokens=task.max_tokens,
            stuck_after_s=STUCK_AFTER_DEADLINES * server.request_timeout_s,
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


def _describe(engine: GeneratorEngine, isa: str, load_seconds: float) -> Description:
    footprint = engine.footprint()
    return Description(
        device=engine.device,
        isa=isa,
        weights_bytes=footprint.weights_bytes,
        disk_bytes=footprint.disk_bytes,
        resident_bytes=footprint.resident_bytes,
        peak_bytes=footprint.peak_bytes,
        load_seconds=load_seconds,
        max_tokens=engine.max_tokens,
        width=0,
        labels=(),
        kv_cache_bytes=engine.load().kv_cache_bytes,
    )
