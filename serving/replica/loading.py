"""Builds everything that one replica has, without Ray; encoders and generators differ."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from serving.artifacts import ArtifactRequest, ArtifactStore, ensure
from serving.config import ModelConfig, ServerConfig, VariantConfig
from serving.cores import join
from serving.machine.cores import available_cores
from serving.replica.encoder.loading import load_encoder
from serving.replica.generator.draft import Draft
from serving.replica.generator.loading import load_generator
from serving.replica.loaded_variant import LoadedVariant
from serving.replica.slowness_watch import SlownessWatch
from serving.replica.thread_choice import choose_when_quiet
from serving.replica.timed_pass import timed_pass
from serving.tasks import TASKS


async def load_variant(
    model: ModelConfig,
    variant: VariantConfig,
    request: ArtifactRequest,
    store: Path,
    server: ServerConfig,
    replica: str,
    draft: ArtifactRequest | None = None,
    reference: ArtifactRequest | None = None,
) -> LoadedVariant:
    """Open one variant from its artifact, run it once and wire it, in the running event loop.

    The artifact is made first if the node has none.

    Args:
        model: The model's configuration.
        variant: The variant's configuration.
        request: What the artifact is made of.
        store: Folder of the artifacts.
        server: The HTTP side's; a forward pass that outlasts several deadlines is stuck.
        replica: Value of the ``replica`` label.
        draft: What the variant that proposes tokens is made of; None if none does.
        reference: Likewise the variant that its passes are compared with.

    Raises:
        ConfigError: The checkpoint cannot be converted, or the machine cannot run the variant.
    """
    found = ArtifactStore(store)
    artifact = await asyncio.to_thread(ensure, request, found)
    beside = None
    if draft is not None:
        beside = Draft(draft, await asyncio.to_thread(ensure, draft, found))
    cores = await asyncio.to_thread(
        join,
        request.device,
        variant.threads or available_cores(),
        exclusive=variant.cores == "exclusive",
    )
    arguments = model, variant, request.device, artifact, server, replica, cores
    try:
        if TASKS[model.task].kind == "encoder":
            loaded = await load_encoder(*arguments)
        else:
            loaded = await load_generator(*arguments, beside)
    except BaseException:
        # The process lives on to say why, and others wait for what it would keep.
        cores.close()
        raise
    if variant.threads is not None or request.device != "cpu":
        return loaded
    drafted_by = None if beside is None else beside.artifact
    choose = partial(
        choose_when_quiet, artifact, cores, timed_pass(model.task, loaded.backend), drafted_by
    )
    watch = None
    if reference is not None:
        watch = SlownessWatch(request.name, artifact, reference, found, drafted_by)
    measuring = asyncio.get_running_loop().create_task(_measure(choose, watch))
    return replace(
        loaded,
        close=partial(_close, measuring, loaded),
        remark=lambda: None if watch is None else watch.remark,
    )


async def _measure(choose: Callable[[], Awaitable[None]], watch: SlownessWatch | None) -> None:
    """Time passes, which limits the cores that are taken, and compare them with the reference's."""
    await choose()
    if watch is not None:
        await watch.compare()


def _close(measuring: asyncio.Task[None], loaded: LoadedVariant) -> None:
    measuring.cancel()
    loaded.close()
