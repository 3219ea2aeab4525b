"""What a configuration will load, how large it is, and whether it fits; nothing is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import psutil
from pydantic import ValidationError

from serving.checkpoint import find_checkpoint, position_limit, weight_shapes
from serving.config import (
    DEFAULT_MAX_TOKENS,
    Config,
    ModelConfig,
    ServerConfig,
    VariantConfig,
)
from serving.errors import ConfigError
from serving.quality.dataset import read_dataset
from serving.quality.probes import read_probes
from serving.runtimes import VARIANTS, get_variant
from serving.seams import Checkpoint, WeightShape
from serving.settings import explain
from serving.tasks import GENERATION_TASKS, check_task

PROCESS_BYTES = 480 * 1024**2
"""Resident memory of a replica with torch and transformers loaded, before any weights (CPU)."""

KEYS_OF = {"max_batch_tokens": "encoders", "max_running_requests": "generators"}
"""Keys of a variant that mean something for one kind of engine only."""

_KEYS_AND_VALUES = re.compile(r"(^|\.)(k_proj|v_proj|attn_k|attn_v)\.weight$")
"""Weights whose output is cached for every token, as safetensors and GGUF files name them."""

SERVICE_BYTES = 1_200 * 1024**2
"""Resident memory of Ray, its proxy and the gateway together."""


@dataclass(frozen=True, slots=True)
class PlannedVariant:
    """One variant with its estimate.

    Attributes:
        model: The model's configuration.
        variant: The variant's configuration.
        checkpoint: The source that was found.
        weights_bytes: Estimated packed size of the weights of one replica.
        kv_cache_bytes: Estimated size of a generator's cache of keys and values in one replica; 0
            for an encoder.
        replicas: The most replicas that it can have.
        resident_bytes: Estimated resident memory of all replicas together.
        loading_bytes: What all of them need on top while they load: quantizing starts from a
            float32 copy.
    """

    model: ModelConfig
    variant: VariantConfig
    checkpoint: Checkpoint
    weights_bytes: int
    kv_cache_bytes: int
    replicas: int
    resident_bytes: int
    loading_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Every variant of a configuration.

    Attributes:
        variants: In the order of the configuration.
        needed_bytes: Estimated memory of the whole service while all replicas load at once.
        available_bytes: Memory that the machine has left.
    """

    variants: tuple[PlannedVariant, ...]
    needed_bytes: int
    available_bytes: int

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


def make_plan(config: Config) -> Plan:
    """Find every source, validate every name, option and file, and estimate sizes.

    Raises:
        ConfigError: A task, variant or option is unknown, or a file of probes or labelled data is
            wrong; names the key.
        SourceError: A source is missing.
    """
    variants = [
        planned
        for index, model in enumerate(config.models)
        for planned in _plan_model(f"models[{index}]", model)
    ]
    return Plan(
        variants=tuple(variants),
        needed_bytes=SERVICE_BYTES
        + sum(planned.resident_bytes + planned.loading_bytes for planned in variants),
        available_bytes=available_bytes(),
    )


def longest_request_s(models: Sequence[ModelConfig], server: ServerConfig) -> float:
    """Seconds that a request to one of these models may take."""
    if any(model.task in GENERATION_TASKS for model in models):
        return max(server.request_timeout_s, server.generation_timeout_s)
    return server.request_timeout_s


def available_bytes() -> int:
    """Memory that processes may still take: the machine's, or less in a container with a limit.

    Pages of files that the kernel can drop count as free (control groups, version 2).
    """
    available: int = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        statistics = (group / "memory.stat").read_text().split()
    except OSError:
        return available
    droppable = int(statistics[statistics.index("inactive_file") + 1])
    return available if limit == "max" else min(available, int(limit) - used + droppable)


def _plan_model(key: str, model: ModelConfig) -> list[PlannedVariant]:
    try:
        check_task(model.task)
    except ConfigError as error:
        raise ConfigError(f"{key}.task: {error}") from None
    for index, variant in enumerate(model.variants):
        _check_variant(f"{key}.variants[{index}]", model, variant)
    _check_quality(f"{key}.quality", model)
    checkpoint = find_checkpoint(model.name, model.source, model.trust_remote_code)
    shapes = weight_shapes(checkpoint)
    return [_plan_variant(model, variant, checkpoint, shapes) for variant in model.variants]


def _check_variant(key: str, model: ModelConfig, variant: VariantConfig) -> None:
    if variant.name not in VARIANTS:
        raise ConfigError(
            f"{key}.name: unknown variant {variant.name!r}; known: {', '.join(VARIANTS)}"
        )
    kind = "generators" if model.task in GENERATION_TASKS else "encoders"
    for name, owners in KEYS_OF.items():
        if name in variant.model_fields_set and owners != kind:
            raise ConfigError(
                f"{key}.{name}: a key of {owners}; {model.name!r} serves {model.task}. Remove it"
            )
    try:
        get_variant(variant.name).options(**variant.options)
    except ValidationError as error:
        raise ConfigError(f"{key}.options.{explain(error)}") from None


def _check_quality(key: str, model: ModelConfig) -> None:
    """Read the files that the variants will be judged by, so that a wrong one is told now."""
    files = (
        ("probes", model.quality.probes, read_probes),
        ("dataset", model.quality.dataset, read_dataset),
    )
    for name, file, read in files:
        if file is None:
            continue
        try:
            read(Path(file), model.task)
        except ConfigError as error:
            raise ConfigError(f"{key}.{name}: {error}") from None


def _plan_variant(
    model: ModelConfig,
    variant: VariantConfig,
    checkpoint: Checkpoint,
    shapes: Sequence[WeightShape],
) -> PlannedVariant:
    entry = get_variant(variant.name)
    options = entry.options(**variant.options)
    weights = sum(entry.weight_bytes(shape, options) for shape in shapes)
    cache = _kv_cache_bytes(model, variant, checkpoint, shapes)
    replicas = variant.max_replicas
    full = sum(4 * prod(shape.shape) for shape in shapes)
    return PlannedVariant(
        model=model,
        variant=variant,
        checkpoint=checkpoint,
        weights_bytes=weights,
        kv_cache_bytes=cache,
        replicas=replicas,
        resident_bytes=replicas * (weights + cache + PROCESS_BYTES),
        loading_bytes=replicas * full if weights < full else 0,
    )


def _kv_cache_bytes(
    model: ModelConfig,
    variant: VariantConfig,
    checkpoint: Checkpoint,
    shapes: Sequence[WeightShape],
) -> int:
    """Size of one key and one value per layer, token and sequence that may run."""
    if model.task not in GENERATION_TASKS:
        return 0
    tokens = model.max_tokens or DEFAULT_MAX_TOKENS
    if (limit := position_limit(checkpoint)) is not None:
        tokens = min(tokens, limit)
    # Each row of such a weight gives one number.
    numbers = sum(shape.shape[0] for shape in shapes if _KEYS_AND_VALUES.search(shape.name))
    bytes_per_number = get_variant(variant.name).kv_cache_bytes_per_number
    return variant.max_running_requests * tokens * numbers * bytes_per_number
