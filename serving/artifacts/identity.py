"""Finds out, on the machine where it will run, which artifact a request means."""

from __future__ import annotations

from serving.artifacts.calibration import describe_inputs, read_held_out, read_inputs
from serving.artifacts.key import AdapterData, ArtifactKey, MeasuredOn
from serving.artifacts.request import ArtifactRequest
from serving.artifacts.store import ArtifactStore
from serving.checkpoint import source_files
from serving.lora_adapter import adapter_files
from serving.machine.device import instructions_of
from serving.runtimes import RUNTIMES
from serving.runtimes.matrix import installed_version
from serving.seams import Adapter


def key_of(request: ArtifactRequest, store: ArtifactStore) -> ArtifactKey:
    """The key of what a request means on this machine.

    Versions, device and instruction set are this machine's: a request may come from another node.

    Args:
        request: What is asked for.
        store: Remembers the digests of the source's files.

    Raises:
        ConfigError: The store or a file of inputs to calibrate with cannot be used, or the machine
            has no such device.
        SourceError: The source is damaged, or not on this machine.
    """
    checkpoint, calibration = request.checkpoint, request.calibration
    device = request.device
    return ArtifactKey(
        source=store.source_digest(checkpoint.folder, source_files(checkpoint)),
        adapter=_adapter(request.adapter, store),
        task=request.task,
        recipe=request.recipe,
        options=request.options,
        runtime=request.runtime,
        versions=_versions(request.runtime),
        device=device,
        instructions=instructions_of(device),
        kv_cache=request.kv_cache,
        calibration=None
        if calibration is None
        else describe_inputs(calibration, read_inputs(request.task, calibration)),
        measured_on=_measured_on(request, store),
    )


def _adapter(adapter: Adapter | None, store: ArtifactStore) -> AdapterData | None:
    if adapter is None:
        return None
    digest = store.source_digest(adapter.folder, adapter_files(adapter.folder))
    return AdapterData(digest=digest, place=adapter.place)


def _measured_on(request: ArtifactRequest, store: ArtifactStore) -> MeasuredOn | None:
    if request.floor is None:
        return None
    origin = request.floor.origin
    return MeasuredOn(
        inputs=describe_inputs(origin, read_held_out(request.task, origin)),
        reference=key_of(request.floor.reference, store).id,
    )


def _versions(runtime_name: str) -> dict[str, str]:
    runtime = RUNTIMES[runtime_name]
    packages = ("quantserve", *runtime.packages, *runtime.preparing_packages)
    return {package: installed_version(package) or "" for package in packages}
