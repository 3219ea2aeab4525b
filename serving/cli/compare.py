"""``quantserve compare``: one model's variants on the same inputs, offline, without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from serving.app.comparison import Row, compare, read_data, variants_of
from serving.app.plan import make_plan
from serving.artifacts import ArtifactStore
from serving.cli.console import clean_errors, config_or_demo, err, mebibytes, new_table, out
from serving.cli.preparing import prepare_shown
from serving.errors import ConfigError
from serving.settings import load_config
from serving.tasks import TASKS


def compare_command(
    model: Annotated[str, typer.Argument(help="Name of a configured model.")],
    data: Annotated[
        Path,
        typer.Option(
            help='JSONL lines {"input", "label"}, or a text file, one text a line; for pairs, '
            'JSONL lines {"query", "document"}.'
        ),
    ],
    config: Annotated[Path | None, typer.Option(help="YAML file; the demo without it.")] = None,
) -> None:
    """Run every variant of MODEL over the texts of --data and print what each costs and loses."""
    with clean_errors():
        settings = load_config(config_or_demo(config))
        variants = variants_of(make_plan(settings), model)
        examples = read_data(data, TASKS[variants[0].model.task])
        events = prepare_shown(variants, ArtifactStore(Path(settings.artifacts.folder)))
        artifacts = [event.artifact for event in events if event.artifact is not None]
        if failed := [event for event in events if event.artifact is None]:
            raise ConfigError("\n".join(event.reason for event in failed))
        rows: list[Row] = []
        with err.status("running the reference") as status:
            for row in compare(variants, artifacts, examples):
                rows.append(row)
                status.update(f"{row.variant} done; next variant")
        out.print(comparison_table(model, len(examples), rows))


def comparison_table(model: str, num_inputs: int, rows: list[Row]) -> Table:
    """One row per variant; in brackets, the ratio to the first one, the reference."""
    first = rows[0]
    table = new_table(
        f"{model}, {num_inputs} inputs; sizes in MiB; in brackets: ratio to {first.variant}",
        ["variant"],
        [
            *(["accuracy"] if first.accuracy is not None else []),
            *(name.replace("_", " ") for name in first.measures),
            *("time, s", "resident", "private", "weights", "on disk"),
        ],
    )
    for row in rows:
        cells = [row.variant]
        if row.accuracy is not None and first.accuracy is not None:
            cells.append(f"{row.accuracy:.4f} ({_ratio(row.accuracy, first.accuracy)})")
        cells += [f"{row.measures[name]:.4f}" for name in first.measures]
        one, reference = row.measurement, first.measurement
        cells.append(f"{one.elapsed_s:.2f} ({_ratio(one.elapsed_s, reference.elapsed_s)})")
        for size, base in (
            (one.footprint.resident_bytes, reference.footprint.resident_bytes),
            (one.footprint.private_bytes, reference.footprint.private_bytes),
            (one.footprint.weights_bytes, reference.footprint.weights_bytes),
            (one.disk_bytes, reference.disk_bytes),
        ):
            cells.append(f"{mebibytes(size)} ({_ratio(size, base)})")
        table.add_row(*cells)
    return table


def _ratio(value: float, reference: float) -> str:
    return f"{value / reference:.2f}" if reference else "–"
