"""Loads one variant of an encoder and puts a batcher in front of it."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from serving.config import ModelConfig, ServerConfig, VariantConfig
from serving.metrics import EncoderMetrics, Labels, ReplicaMetrics
from serving.replica.encoder.batcher import Batcher
from serving.replica.encoder.batching import pad
from serving.replica.encoder.local_encoder import LocalBackend
from serving.replica.loaded_variant import STUCK_AFTER_DEADLINES, Held
from serving.runtimes import get_variant
from serving.runtimes.torch.device import available_cores, choose_device, instructions_of
from serving.seams import (
    Checkpoint,
    Description,
    DeviceName,
    EncoderEngine,
    EncoderTask,
    LoadRequest,
)
from serving.tasks import load_task

MAX_BATCH_TOKENS: dict[DeviceName, int] = {"cpu": 1_024, "cuda": 16_384}
"""Enough to keep the device busy: larger batches raise latency, not throughput."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A task and an engine, and how long both took to load."""

    task: EncoderTask
    engine: EncoderEngine
    load_seconds: float


def load(model: ModelConfig, variant: VariantConfig, checkpoint: Checkpoint) -> Loaded:
    """Load task and engine of one variant and run them once.

    Call it in the thread that will run the forward passes, and run no kernel in any other: GNU
    OpenMP keeps a team of threads for each thread that ever ran one, and where the teams together
    exceed the cores it no longer lets any of them spin, which doubles the time of small passes.

    Raises:
        ConfigError: The machine cannot run the variant, or an option is wrong.
    """
    started = time.perf_counter()
    task = load_task(model.task, checkpoint, model.max_tokens)
    entry = get_variant(variant.name)
    engine = entry.load(
        LoadRequest(
            checkpoint=checkpoint,
            head=task.head,
            device=choose_device(variant.device),
            threads=variant.threads or available_cores(),
            options=entry.options(**variant.options),
        )
    )
    token_ids = task.encode(["The first forward pass allocates and warms."], True)
    engine.forward(pad(token_ids, task.max_tokens))
    return Loaded(task, engine, time.perf_counter() - started)


async def hold_encoder(
    model: ModelConfig,
    variant: VariantConfig,
    checkpoint: Checkpoint,
    server: ServerConfig,
    replica: str,
) -> Held:
    """Load and wire; see ``serving.replica.loading.hold``."""
    worker = ThreadPoolExecutor(1, thread_name_prefix="forward")
    loaded = await asyncio.get_running_loop().run_in_executor(
        worker, load, model, variant, checkpoint
    )
    replica_metrics = ReplicaMetrics(Labels(model.name, variant.name, model.task), replica)
    metrics = EncoderMetrics(replica_metrics)
    batcher = Batcher(
        loaded.engine,
        worker,
        max_tokens=loaded.task.max_tokens,
        max_batch_tokens=variant.max_batch_tokens or MAX_BATCH_TOKENS[loaded.engine.device],
        max_queued_requests=variant.max_queued_requests,
        on_batch=metrics.observe_batch,
        stuck_after_s=STUCK_AFTER_DEADLINES * server.request_timeout_s,
    )
    metrics.queued.set_function(lambda: batcher.num_queued)
    entry = get_variant(variant.name)
    isa = instructions_of(loaded.engine.device)
    replica_metrics.set_info(
        loaded.engine.device,
        entry.runtime,
        entry.recipe,
        isa,
        is_reference=variant.name == model.reference,
    )
    replica_metrics.set_queue_limit(variant.max_queued_requests)
    backend = LocalBackend(
        model.name, loaded.task, batcher, metrics, partial(_describe, loaded, isa)
    )
    return Held(
        backend=backend,
        metrics=replica_metrics,
        check_health=batcher.check_health,
        close=partial(worker.shutdown, wait=False),
    )


def _describe(loaded: Loaded, isa: str) -> Description:
    footprint = loaded.engine.footprint()
    return Description(
        device=loaded.engine.device,
        isa=isa,
        weights_bytes=footprint.weights_bytes,
        disk_bytes=footprint.disk_bytes,
        resident_bytes=footprint.resident_bytes,
        peak_bytes=footprint.peak_bytes,
        load_seconds=loaded.load_seconds,
        max_tokens=loaded.task.max_tokens,
        width=loaded.task.width,
        labels=loaded.task.labels,
    )
