"""``quantserve check``: validate a configuration and print what it would load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from serving.app.plan import Plan, PlannedVariant, make_plan
from serving.artifacts import ArtifactKey, ArtifactStore, key_of
from serving.artifacts.calibration import remarks
from serving.artifacts.rehearsal import rehearse
from serving.cli.console import (
    clean_errors,
    config_or_demo,
    mebibytes,
    new_table,
    out,
    short_id,
)
from serving.errors import DamagedArtifact
from serving.settings import load_config


def check(
    config: Annotated[Path | None, typer.Argument(help="YAML file; the demo without it.")] = None,
) -> None:
    """Validate CONFIG, print every variant with its estimated size, and try each checkpoint."""
    with clean_errors():
        settings = load_config(config_or_demo(config))
        plan = make_plan(settings)
        store = ArtifactStore(Path(settings.artifacts.folder))
        keys = [key_of(planned.artifact, store) for planned in plan.variants]
        out.print(plan_table(plan, [artifact_state(key, store) for key in keys]))
        for planned, key in zip(plan.variants, keys, strict=True):
            for remark in calibration_remarks(planned, key):
                out.print(remark, soft_wrap=True, markup=False)
        out.print(
            f"needs about {mebibytes(plan.needed_bytes)} MiB, "
            f"{mebibytes(plan.available_bytes)} MiB are available"
        )
        plan.require_fit()
        rehearse((planned.artifact, planned.model.max_tokens) for planned in plan.variants)


def plan_table(plan: Plan, artifacts: list[str]) -> Table:
    """One row per variant; ``artifacts`` says of each whether it is prepared."""
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
            f"{variant.recipe}, {variant.runtime}, {planned.device}: {artifact}",
            replicas,
            mebibytes(planned.weights_bytes * planned.replicas),
            mebibytes(planned.kv_cache_bytes * planned.replicas or None),
            mebibytes(planned.resident_bytes),
        )
    return table


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
