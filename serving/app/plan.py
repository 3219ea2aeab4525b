"""What a configuration will load, how large it is, and whether it fits; nothing is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from serving.app.adapters import bytes_beside, plan_adapter
from serving.app.agreement_floor import plan_floor, reference_of
from serving.app.cached_numbers import numbers_of_a_token
from serving.app.calibration_origin import calibration_origin
from serving.app.config_checks import check_model, recipe_options
from serving.app.draft_checks import check_draft
from serving.app.source_checks import check_source
from serving.app.sources import FoundSource, Sources
from serving.artifacts import ArtifactRequest
from serving.config import (
    DEFAULT_MAX_TOKENS,
    Config,
    ModelConfig,
    ServerConfig,
    VariantConfig,
)
from serving.errors import ConfigError, SourceError
from serving.machine.cores import available_cores
from serving.machine.device import choose_device
from serving.machine.memory import available_bytes
from serving.runtimes import RUNTIMES
from serving.runtimes.matrix import describe_possible, why_not
from serving.seams import Combination, DeviceName, SizeRequest
from serving.tasks import TASKS

SERVICE_BYTES = 1_200 * 1024**2
"""Resident memory of Ray, its proxy and one gateway together."""

GATEWAY_BYTES = 80 * 1024**2
"""Memory of each further gateway: 47 MiB of its own after 300 requests, and room to grow."""


@dataclass(frozen=True, slots=True)
class PlannedVariant:
    """One variant with its estimate.

    Attributes:
        model: The model's configuration.
        variant: The variant's configuration.
        artifact: What its replicas are opened from.
        device: Where they run if they run on this machine.
        weights_bytes: Estimated packed size of the weights of one replica.
        kv_cache_bytes: Estimated size of a generator's cache of keys and values in one replica; 0
            for an encoder.
        replica_bytes: Estimated resident memory of one replica; without its cache where that is not
            known.
        process_bytes: The part of it before any weights.
        preloaded_bytes: The part of it that all replicas of the runtime on this machine share.
        replicas: The most replicas that it can have.
        draft: What its replicas open beside it to propose tokens; None if nothing does. Weights,
            cache and memory are those of both.
        is_cache_known: Whether the checkpoint tells how many numbers it caches for a token.
        compared_with: What the times of its passes are compared with: the model's reference, if
            passes of both are timed; else None.
    """

    model: ModelConfig
    variant: VariantConfig
    artifact: ArtifactRequest
    device: DeviceName
    weights_bytes: int
    kv_cache_bytes: int
    replica_bytes: int
    process_bytes: int
    preloaded_bytes: int
    replicas: int
    draft: ArtifactRequest | None = None
    is_cache_known: bool = True
    compared_with: ArtifactRequest | None = None

    @property
    def resident_bytes(self) -> int:
        """Estimated resident memory of all replicas together, without what they share."""
        return self.replicas * (self.replica_bytes - self.preloaded_bytes)


@dataclass(frozen=True, slots=True)
class Plan:
    """Every variant of a configuration.

    Attributes:
        variants: In the order of the configuration.
        needed_bytes: Estimated memory of the whole service with all replicas, or of the largest
            process that prepares, if that is more: all is prepared before anything is served.
        available_bytes: Memory that the machine has left.
        gateways: How many there are.
    """

    variants: tuple[PlannedVariant, ...]
    needed_bytes: int
    available_bytes: int
    gateways: int = 1

    @property
    def fits(self) -> bool:
        """Whether the machine's memory suffices."""
        return self.needed_bytes <= self.available_bytes

    def require_fit(self) -> None:
        """Raise ``ConfigError`` unless the plan fits."""
        if not self.fits:
            largest = max(self.variants, key=lambda planned: planned.resident_bytes)
            raise ConfigError(
                f"the configuration needs about {self.needed_bytes / 1024**3:.1f} GiB, "
                f"{self.available_bytes / 1024**3:.1f} GiB are available; the largest is "
                f"{largest.model.name}:{largest.variant.name}. Serve fewer variants or replicas"
            )


def make_plan(config: Config, cluster_has_cuda: bool | None = None) -> Plan:
    """Find every source, validate every name, option, combination and file, and estimate sizes.

    Args:
        config: What to serve.
        cluster_has_cuda: Whether a cluster has a CUDA device, where replicas run on nodes of its
            choice; None if all of them run on this machine. A cluster may have none yet, and start
            a node that has one for the first replica that names ``cuda``.

    Raises:
        ConfigError: A task, recipe, runtime or option is unknown, a runtime cannot do what a
            variant asks of it here, a source is not one for the task or could not be compared with
            the reference's, a variant cannot propose tokens to another, or a file of probes or
            labelled data is wrong; names the key.
        SourceError: A source is missing or damaged.
    """
    for index, model in enumerate(config.models):
        check_model(f"models[{index}]", model)
    sources = Sources()
    variants = tuple(
        planned
        for index, model in enumerate(config.models)
        for planned in _plan_model(f"models[{index}].variants", model, sources, cluster_has_cuda)
    )
    if cluster_has_cuda is None:
        check_exclusive_cores(variants, available_cores())
    preparing = max(planned.artifact.preparing_bytes for planned in variants)
    gateways = config.server.gateways
    needed_bytes = max(serving_bytes(variants, gateways), preparing)
    return Plan(variants, needed_bytes, available_bytes(), gateways)


def serving_bytes(variants: Sequence[PlannedVariant], gateways: int) -> int:
    """Estimated memory of the whole service with all replicas."""
    resident = sum(planned.resident_bytes for planned in variants)
    return service_bytes(gateways) + resident + sum(shared_bytes(variants).values())


def service_bytes(gateways: int) -> int:
    """Estimated memory of Ray, its proxy and so many gateways."""
    return SERVICE_BYTES + (gateways - 1) * GATEWAY_BYTES


def shared_bytes(variants: Sequence[PlannedVariant]) -> dict[str, int]:
    """What all replicas of a runtime share, by its name: it is there once."""
    return {one.artifact.runtime: one.preloaded_bytes for one in variants if one.preloaded_bytes}


def check_exclusive_cores(variants: Sequence[PlannedVariant], num_cores: int) -> None:
    """Raise ``ConfigError`` unless exclusive variants, and the others beside them, have cores."""
    on_cpu = [planned for planned in variants if planned.device == "cpu"]
    exclusive = [planned for planned in on_cpu if planned.variant.cores == "exclusive"]
    wanted = sum((planned.variant.threads or 0) * planned.replicas for planned in exclusive)
    shared = 1 if len(exclusive) < len(on_cpu) else 0
    if exclusive and wanted + shared > num_cores:
        names = ", ".join(planned.artifact.name for planned in exclusive)
        beside = " and one core for all others" if shared else ""
        raise ConfigError(
            f"cores: exclusive: {names} want {wanted} cores{beside}; this machine has {num_cores}. "
            "Give them fewer threads or replicas, or let them share"
        )


def longest_request_s(models: Sequence[ModelConfig], server: ServerConfig) -> float:
    """Seconds that a request to one of these models may take."""
    if any(TASKS[model.task].kind == "generator" for model in models):
        return max(server.request_timeout_s, server.generation_timeout_s)
    return server.request_timeout_s


def _plan_model(
    key: str, model: ModelConfig, sources: Sources, cluster_has_cuda: bool | None
) -> list[PlannedVariant]:
    alone = [
        _plan_variant(f"{key}[{number}]", model, variant, sources, cluster_has_cuda)
        for number, variant in enumerate(model.variants)
    ]
    [reference] = [planned for planned in alone if planned.variant.name == model.reference]
    return [
        _beside(_with_draft(f"{key}[{number}]", planned, alone, sources), reference)
        for number, planned in enumerate(alone)
    ]


def _beside(planned: PlannedVariant, reference: PlannedVariant) -> PlannedVariant:
    """Note what times of passes are compared with, where replicas of both look for them."""
    is_itself = planned.variant.name == reference.variant.name
    are_timed = all(
        one.device == "cpu" and one.variant.threads is None for one in (planned, reference)
    )
    if is_itself or not are_timed or reference.variant.draft is not None:
        return planned
    return replace(planned, compared_with=reference.artifact)


def _plan_variant(
    key: str,
    model: ModelConfig,
    variant: VariantConfig,
    sources: Sources,
    cluster_has_cuda: bool | None,
) -> PlannedVariant:
    runtime = RUNTIMES[variant.runtime]
    device = _device(key, variant, cluster_has_cuda)
    source = _find_source(key, model, variant, sources)
    options = recipe_options(key, variant)
    adapter = plan_adapter(key, model, variant, source, sources)
    combination = Combination(
        recipe=variant.recipe,
        kind=TASKS[model.task].kind,
        device=device,
        format=source.checkpoint.format,
        config=source.config,
        max_tokens=_max_tokens(model, source) if TASKS[model.task].kind == "generator" else None,
        kv_cache=variant.kv_cache,
        options=options,
        adapter=adapter.place if adapter else None,
    )
    if (reason := why_not(combination, variant.runtime)) is not None:
        raise ConfigError(
            f"{key}: recipe {variant.recipe!r} on runtime {variant.runtime!r}: {reason}. "
            f"{describe_possible(combination, variant.runtime)}"
        )
    check_source(_source_key(key, variant), model, variant, source, sources)
    kept_beside = bytes_beside(adapter, source)
    estimate = runtime.estimate(
        SizeRequest(
            variant.recipe, options, combination.kind, device, source.shapes, variant.kv_cache
        )
    )
    numbers = _cached_numbers(model, variant, source)
    cache = ceil(estimate.kv_number_bytes * (numbers or 0))
    measured = None
    if variant.min_agreement is not None:
        beside = _device(key, reference_of(variant), cluster_has_cuda)
        measured = plan_floor(key, model, variant, source, estimate, sources, beside)
    artifact = ArtifactRequest(
        model=model.name,
        variant=variant.name,
        checkpoint=source.checkpoint,
        adapter=adapter,
        task=model.task,
        recipe=variant.recipe,
        runtime=variant.runtime,
        options=options.model_dump(mode="json"),
        wanted_device=variant.device,
        kv_cache=variant.kv_cache,
        calibration=calibration_origin(key, model, variant),
        preparing_bytes=measured.preparing_bytes if measured else estimate.preparing_bytes,
        floor=measured.floor if measured else None,
    )
    return PlannedVariant(
        model=model,
        variant=variant,
        artifact=artifact,
        device=device,
        weights_bytes=estimate.weights_bytes + kept_beside,
        kv_cache_bytes=cache,
        replica_bytes=estimate.process_bytes
        + estimate.weights_bytes
        + kept_beside
        + estimate.extra_bytes
        + cache,
        process_bytes=estimate.process_bytes,
        preloaded_bytes=estimate.preloaded_bytes,
        replicas=variant.max_replicas,
        is_cache_known=numbers is not None,
    )


def _with_draft(
    key: str, planned: PlannedVariant, of_model: Sequence[PlannedVariant], sources: Sources
) -> PlannedVariant:
    """Count in what a variant opens beside itself; each slot of it has one in its draft."""
    section, exact = planned.variant.draft, planned.variant
    if section is None:
        return planned
    [draft] = [other for other in of_model if other.variant.name == section.variant]
    devices = planned.device, draft.device
    check_draft(f"{key}.draft", planned.model, exact, draft.variant, devices, sources)
    slots = exact.max_running_requests / draft.variant.max_running_requests
    cache = ceil(draft.kv_cache_bytes * slots)
    beside = draft.replica_bytes - draft.process_bytes - draft.kv_cache_bytes + cache
    return replace(
        planned,
        weights_bytes=planned.weights_bytes + draft.weights_bytes,
        kv_cache_bytes=planned.kv_cache_bytes + cache,
        replica_bytes=planned.replica_bytes + beside,
        draft=draft.artifact,
    )


def _find_source(
    key: str, model: ModelConfig, variant: VariantConfig, sources: Sources
) -> FoundSource:
    try:
        return sources.find(model, variant)
    except SourceError as error:
        raise SourceError(f"{_source_key(key, variant)}: {error}") from None


def _source_key(key: str, variant: VariantConfig) -> str:
    return f"{key}.source" if variant.source else f"{key.partition('.')[0]}.source"


def _device(key: str, variant: VariantConfig, cluster_has_cuda: bool | None) -> DeviceName:
    runtime = RUNTIMES[variant.runtime]
    if cluster_has_cuda is None or variant.device == "cpu":
        try:
            return choose_device(variant.device, runtime)
        except ConfigError as error:
            raise ConfigError(f"{key}.device: {error}") from None
    is_taken = cluster_has_cuda and "cuda" in runtime.devices
    return "cuda" if variant.device == "cuda" or is_taken else "cpu"


def _cached_numbers(model: ModelConfig, variant: VariantConfig, source: FoundSource) -> int | None:
    """Numbers in one key and one value per layer, token and sequence that may run; None if unknown.

    An encoder has 0.
    """
    if TASKS[model.task].kind != "generator":
        return 0
    numbers = numbers_of_a_token(source.config, source.shapes)
    if numbers is None:
        return None
    return variant.max_running_requests * _max_tokens(model, source) * numbers


def _max_tokens(model: ModelConfig, source: FoundSource) -> int:
    """Most tokens of a generator's sequence."""
    tokens = model.max_tokens or DEFAULT_MAX_TOKENS
    for name in ("max_position_embeddings", "n_positions"):
        if (limit := source.config.get(name)) is not None:
            tokens = min(tokens, int(limit))
    return tokens
