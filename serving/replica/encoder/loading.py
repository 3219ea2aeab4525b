"""Opens one variant of an encoder and puts a batcher in front of it."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from serving.artifacts import Artifact
from serving.config import ModelConfig, ServerConfig, VariantConfig
from serving.errors import ConfigError
from serving.machine.cores import available_cores
from serving.machine.device import instructions_of
from serving.metrics import EncoderMetrics, Labels, ReplicaMetrics
from serving.recipes import RECIPES
from serving.replica.encoder.batcher import Batcher
from serving.replica.encoder.local_encoder import LocalEncoder
from serving.replica.loaded_variant import STUCK_AFTER_DEADLINES, LoadedVariant
from serving.runtimes import RUNTIMES
from serving.seams import (
    Cores,
    Description,
    DeviceName,
    EncoderEngine,
    EncoderTask,
    Item,
    OpenRequest,
)
from serving.tasks import TASKS

MAX_BATCH_TOKENS: dict[DeviceName, int] = {"cpu": 1_024, "cuda": 16_384}
"""Enough to keep the device busy: larger batches raise latency, not throughput."""


@dataclass(frozen=True, slots=True)
class OpenedEncoder:
    """A task and an engine, what they were opened from, and how long that took.

    ``proven`` is an item that the engine has answered.
    """

    task: EncoderTask
    engine: EncoderEngine
    proven: Item
    artifact: Artifact
    load_seconds: float


def open_encoder(
    model: ModelConfig, variant: VariantConfig, device: DeviceName, artifact: Artifact
) -> OpenedEncoder:
    """Open task and engine of one variant and run them once.

    Call it in the thread that will run the forward passes, and run no kernel in any other: GNU
    OpenMP keeps a team of threads for each thread that ever ran one, and where the teams together
    exceed the cores it no longer lets any of them spin, which doubles the time of small passes.

    Raises:
        ConfigError: The machine cannot run the variant, or its numbers are NaN or infinite.
    """
    started = time.perf_counter()
    entry = TASKS[model.task]
    task: EncoderTask = entry.open(artifact.task_folder, model.max_tokens)
    engine = RUNTIMES[variant.runtime].open_encoder(
        OpenRequest(
            folder=artifact.weights_folder,
            recipe=variant.recipe,
            options=RECIPES[variant.recipe].options(**variant.options),
            head=task.head,
            device=device,
            threads=variant.threads or available_cores(),
        )
    )
    (proven,) = task.prepare(entry.read_probes(None)[:1], True)
    # The first forward pass allocates and warms.
    if not np.isfinite(engine.forward(task.collate([proven]))).all():
        raise ConfigError(
            f"{model.name}:{variant.name} answers its first probe with numbers that are NaN or "
            "infinite, so there is nothing to serve; try another recipe, or look at the checkpoint"
        )
    return OpenedEncoder(task, engine, proven, artifact, time.perf_counter() - started)


async def load_encoder(
    model: ModelConfig,
    variant: VariantConfig,
    device: DeviceName,
    artifact: Artifact,
    server: ServerConfig,
    replica: str,
    cores: Cores,
) -> LoadedVariant:
    """Open and wire; see ``serving.replica.loading.load_variant``."""
    worker = ThreadPoolExecutor(1, thread_name_prefix="forward")
    opened = await asyncio.get_running_loop().run_in_executor(
        worker, open_encoder, model, variant, device, artifact
    )
    replica_metrics = ReplicaMetrics(Labels(model.name, variant.name, model.task), replica)
    metrics = EncoderMetrics(replica_metrics)
    batcher = Batcher(
        opened.engine,
        opened.task.collate,
        worker,
        cores,
        max_batch_cost=variant.max_batch_tokens or MAX_BATCH_TOKENS[device],
        max_queued_requests=variant.max_queued_requests,
        on_batch=metrics.observe_batch,
        proven=opened.proven,
        stuck_after_s=STUCK_AFTER_DEADLINES * server.request_timeout_s,
    )
    metrics.queued.set_function(lambda: batcher.num_queued)
    describe = partial(_describe, opened, instructions_of(device))
    replica_metrics.set_info(variant, describe(), is_reference=variant.name == model.reference)
    replica_metrics.set_queue_limit(variant.max_queued_requests)
    return LoadedVariant(
        backend=LocalEncoder(model.name, opened.task, batcher, metrics, describe),
        metrics=replica_metrics,
        check_health=batcher.check_health,
        # A pass that hangs must not keep the process; with it the kernel takes the cores back.
        close=partial(worker.shutdown, wait=False),
    )


def _describe(opened: OpenedEncoder, isa: str) -> Description:
    footprint = opened.engine.footprint()
    return Description(
        artifact=opened.artifact.id,
        device=opened.engine.device,
        isa=isa,
        weights_bytes=footprint.weights_bytes,
        disk_bytes=opened.artifact.size,
        resident_bytes=footprint.resident_bytes,
        private_bytes=footprint.private_bytes,
        peak_bytes=footprint.peak_bytes,
        load_seconds=opened.load_seconds,
        max_tokens=opened.task.max_tokens,
        width=opened.task.width,
        labels=opened.task.labels,
        prepared_agreement=opened.artifact.manifest.agreement,
    )
