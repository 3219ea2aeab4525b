"""What a variant with ``min_agreement`` is measured on before it is installed, and against what."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from serving.app.cached_numbers import numbers_of_a_token
from serving.app.calibration_origin import held_out_origin
from serving.app.sources import FoundSource, Sources
from serving.artifacts import AgreementFloor, ArtifactRequest
from serving.artifacts.calibration import TEXT_TOKENS
from serving.config import ModelConfig, VariantConfig
from serving.errors import ConfigError, SourceError
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.runtimes.matrix import why_not
from serving.seams import Combination, DeviceName, EngineKind, SizeEstimate, SizeRequest, Task
from serving.tasks import TASKS

RECIPE, RUNTIME = "fp32", "torch"
"""Of the reference: nothing is rounded, and every other runtime starts from it."""


@dataclass(frozen=True, slots=True)
class PlannedFloor:
    """A floor, and what it adds to preparing.

    Attributes:
        floor: What must be reached, on what, against what.
        preparing_bytes: Estimated memory of the process that prepares the variant and measures.
    """

    floor: AgreementFloor
    preparing_bytes: int


def reference_of(variant: VariantConfig) -> VariantConfig:
    """What a variant is measured against, on the device that it wants, of the model's source."""
    return VariantConfig(name="reference", recipe=RECIPE, runtime=RUNTIME, device=variant.device)


def plan_floor(
    key: str,
    model: ModelConfig,
    variant: VariantConfig,
    source: FoundSource,
    estimate: SizeEstimate,
    sources: Sources,
    device: DeviceName,
) -> PlannedFloor:
    """Plan how the agreement of a variant with ``min_agreement`` is measured.

    Args:
        key: Path of the variant's key, for messages.
        model: The model's configuration.
        variant: Its configuration.
        source: Its source.
        estimate: Its sizes.
        sources: Finds the model's own source, of which the reference is made.
        device: Where the reference would run.

    Raises:
        ConfigError: The variant is the reference, or there is nothing to measure it on or against.
        SourceError: The model's source is missing or damaged.
    """
    assert variant.min_agreement is not None
    where = f"{key}.min_agreement"
    plain = reference_of(variant)
    try:
        expected = sources.find(model, plain)
    except SourceError as error:
        raise SourceError(
            f"{where}: its reference is made of the model's source: {error}"
        ) from None
    is_same_source = expected.checkpoint == source.checkpoint
    is_same = is_same_source and variant.adapter is None
    if is_same and (variant.recipe, variant.runtime) == (RECIPE, RUNTIME):
        raise ConfigError(
            f"{where}: {RECIPE} on {RUNTIME} is what others are measured against. Remove it"
        )
    origin = held_out_origin(key, model, variant)
    task = TASKS[model.task]
    combination = Combination(
        RECIPE, task.kind, device, expected.checkpoint.format, expected.config
    )
    if (reason := why_not(combination, RUNTIME)) is not None:
        raise ConfigError(
            f"{where}: it is measured against the model's {RECIPE} on {RUNTIME}, which cannot be "
            f"made of {expected.checkpoint.folder}: {reason}. Remove min_agreement, or give the "
            "model a source in safetensors and the variant this one as its own"
        )
    if not is_same_source:
        _require_comparable(where, task, source, expected)
    options = RECIPES[RECIPE].options()
    of_reference = RUNTIMES[RUNTIME].estimate(
        SizeRequest(RECIPE, options, task.kind, device, expected.shapes)
    )
    reference = ArtifactRequest(
        model=model.name,
        variant=plain.name,
        checkpoint=expected.checkpoint,
        adapter=sources.find_adapter(model, plain),
        task=model.task,
        recipe=RECIPE,
        runtime=RUNTIME,
        options=options.model_dump(mode="json"),
        wanted_device=variant.device,
        calibration=None,
        preparing_bytes=of_reference.preparing_bytes,
    )
    opened = max(
        _opened_bytes(estimate, source, task.kind), _opened_bytes(of_reference, expected, task.kind)
    )
    return PlannedFloor(
        AgreementFloor(least=variant.min_agreement, origin=origin, reference=reference),
        max(estimate.preparing_bytes + opened, of_reference.preparing_bytes),
    )


def _require_comparable(where: str, task: Task, source: FoundSource, expected: FoundSource) -> None:
    if task.why_not_comparable is None:
        return
    try:
        reason = task.why_not_comparable(source.checkpoint, expected.checkpoint)
    except ConfigError as error:
        raise ConfigError(f"{where}: cannot be measured: {error}") from None
    if reason is not None:
        raise ConfigError(
            f"{where}: cannot be measured against {RECIPE} of the model's own source: "
            f"{source.checkpoint.folder} has {reason}. Remove it"
        )


def _opened_bytes(estimate: SizeEstimate, source: FoundSource, kind: EngineKind) -> int:
    """Estimated memory of an engine that answers one text at a time, beside the process itself."""
    numbers = numbers_of_a_token(source.config, source.shapes) if kind == "generator" else 0
    cache = ceil(estimate.kv_number_bytes * (numbers or 0) * TEXT_TOKENS)
    return estimate.weights_bytes + estimate.extra_bytes + cache
