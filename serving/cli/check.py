"""``quantserve check``: validate a configuration and print what it would load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from serving.app.plan import Plan, make_plan
from serving.cli.console import clean_errors, config_or_demo, mebibytes, new_table, out
from serving.settings import load_config


def check(
    config: Annotated[Path | None, typer.Argument(help="YAML file; the demo without it.")] = None,
) -> None:
    """Validate CONFIG and print every variant with its estimated size; load nothing."""
    with clean_errors():
        plan = make_plan(load_config(config_or_demo(config)))
        out.print(plan_table(plan))
        out.print(
            f"needs about {mebibytes(plan.needed_bytes)} MiB, "
            f"{mebibytes(plan.available_bytes)} MiB are available"
        )
        plan.require_fit()


def plan_table(plan: Plan) -> Table:
    """One row per variant."""
    table = new_table(
        "plan; sizes in MiB are estimates, all replicas together",
        ["variant", "device"],
        ["replicas", "weights", "KV cache", "resident"],
    )
    for planned in plan.variants:
        bounds = planned.variant.autoscaling
        replicas = f"{bounds.min}–{bounds.max}" if bounds else str(planned.variant.replicas)
        table.add_row(
            f"{planned.model.name}:{planned.variant.name}",
            planned.variant.device,
            replicas,
            mebibytes(planned.weights_bytes * planned.replicas),
            mebibytes(planned.kv_cache_bytes * planned.replicas or None),
            mebibytes(planned.resident_bytes),
        )
    return table
