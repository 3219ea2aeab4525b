"""``quantserve check``: validate a configuration and print what it would load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from serving.app.plan import Plan, PlannedVariant, service_bytes, serving_bytes, shared_bytes
from serving.artifacts import ArtifactKey, ArtifactStore, key_of
from serving.artifacts.calibration import remarks
from serving.artifacts.rehearsal import rehearse
from serving.artifacts.slowness import slowness
from serving.cli.console import (
    cache_size,
    clean_errors,
    mebibytes,
    new_table,
    out,
    short_id,
)
from serving.cli.planning import load_plan
from serving.errors import DamagedArtifact
from serving.tasks import TASKS


def check(
    config: Annotated[Path | None, typer.Argument(help="YAML file; the demo without it.")] = None,
) -> None:
    """Validate CONFIG, print every variant with its estimated size, and try each checkpoint."""
    with clean_errors():
        settings, plan = load_plan(config)
        store = ArtifactStore(Path(settings.artifacts.folder))
        keys = [key_of(planned.artifact, store) for planned in plan.variants]
        out.print(plan_table(plan, [artifact_state(key, store) for key in keys]))
        for planned, key in zip(plan.variants, keys, strict=True):
            for remark in (
                *calibration_remarks(planned, key),
                *floor_remarks(planned, key),
                *slowness_remarks(planned, key, store),
            ):
                out.print(remark, soft_wrap=True, markup=False)
        prepares = plan.needed_bytes > serving_bytes(plan.variants, plan.gateways)
        out.print(
            f"needs about {mebibytes(plan.needed_bytes)} MiB{' to prepare' if prepares else ''}, "
            f"{mebibytes(plan.available_bytes)} MiB are available"
        )
        plan.require_fit()
        tried = rehearse((planned.artifact, planned.model.max_tokens) for planned in plan.variants)
        for request in tried:
            said = f"{request.name}: its checkpoint loads, for {request.runtime}"
            out.print(said, soft_wrap=True, markup=False)
        out.print(f"all is well: {len(plan.variants)} variants can be prepared and served")


def plan_table(plan: Plan, artifacts: list[str]) -> Table:
    """One row per variant, then what is there once; ``artifacts`` says which are prepared."""
    table = new_table(
        "plan; ×: replicas; sizes in MiB are estimates, all replicas together",
        ["variant", "recipe, runtime, device: artifact"],
        ["×", "weights", "KV cache", "resident"],
    )
    for planned, artifact in zip(plan.variants, artifacts, strict=True):
        variant = planned.variant
        bounds = variant.autoscaling
        replicas = f"{bounds.min}–{bounds.max}" if bounds else str(variant.replicas)
        table.add_row(
            planned.artifact.name,
            f"{variant.recipe}, {variant.runtime}, {planned.device}: {artifact}"
            + adapted(planned)
            + (f", drafted by {variant.draft.variant}" if variant.draft else ""),
            replicas,
            mebibytes(planned.weights_bytes * planned.replicas),
            cache_size(
                planned.kv_cache_bytes * planned.replicas if planned.is_cache_known else None
            ),
            mebibytes(planned.resident_bytes),
        )
    for runtime, shared in shared_bytes(plan.variants).items():
        table.add_row("shared", f"once, by all on {runtime}", "", "", "", mebibytes(shared))
    table.add_row(
        "service",
        "Ray, proxy, gateway",
        str(plan.gateways) if plan.gateways > 1 else "",
        *("", ""),
        mebibytes(service_bytes(plan.gateways)),
    )
    together = mebibytes(serving_bytes(plan.variants, plan.gateways))
    table.add_row("together", "", "", "", "", together)
    return table


def adapted(planned: PlannedVariant) -> str:
    """Say which adapter a variant is made with, if there is one."""
    adapter = planned.model.adapter if planned.variant.adapter is None else planned.variant.adapter
    return f", adapter {adapter.source} {adapter.place}" if adapter else ""


def artifact_state(key: ArtifactKey, store: ArtifactStore) -> str:
    """The beginning of an artifact's id if it is in the store; its bytes are not looked at."""
    try:
        found = store.look_up(key.id)
    except DamagedArtifact:
        return "damaged"
    return "missing" if found is None else short_id(key.id)


def calibration_remarks(planned: PlannedVariant, key: ArtifactKey) -> list[str]:
    """Say what is doubtful about what a variant calibrates with."""
    origin = planned.artifact.calibration
    if origin is None or key.calibration is None:
        return []
    return [f"{planned.artifact.name}: {one}" for one in remarks(origin, key.calibration.count)]


def slowness_remarks(planned: PlannedVariant, key: ArtifactKey, store: ArtifactStore) -> list[str]:
    """Say that a variant is slower than its reference, if that was measured here before."""
    if planned.compared_with is None:
        return []
    keys = [key, key_of(planned.compared_with, store)]
    if planned.draft is not None:
        keys.append(key_of(planned.draft, store))
    try:
        artifacts = [store.look_up(one.id) for one in keys]
    except DamagedArtifact:
        return []
    known = [artifact for artifact in artifacts if artifact is not None]
    if len(known) < len(keys):
        return []
    own, reference, *draft = known
    found = slowness(own, reference, planned.compared_with.variant, *draft)
    return [] if found is None else [f"{planned.artifact.name} is {found}"]


def floor_remarks(planned: PlannedVariant, key: ArtifactKey) -> list[str]:
    """Say that a variant is measured when it is prepared, and on what; nothing is measured here."""
    floor = planned.artifact.floor
    if floor is None or key.measured_on is None:
        return []
    judging = TASKS[planned.model.task].judging
    measure = judging().held_to if judging else "agreement"
    inputs, reference = key.measured_on.inputs, floor.reference
    return [
        f"{planned.artifact.name}: `prepare` measures its {measure} "
        f"to {reference.recipe} on {reference.runtime} over {inputs.count} held-out inputs of "
        f"{inputs.name}, and installs nothing below {floor.least:g}"
    ]
