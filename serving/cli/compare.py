"""``quantserve compare``: one model's variants on the same texts, offline, without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from serving.app.comparison import Row, compare
from serving.app.plan import make_plan
from serving.cli.console import clean_errors, config_or_demo, err, mebibytes, new_table, out
from serving.quality.dataset import read_examples
from serving.settings import load_config


def compare_command(
    model: Annotated[str, typer.Argument(help="Name of a configured model.")],
    data: Annotated[
        Path, typer.Option(help='JSONL lines {"input", "label"}, or a text file, one text a line.')
    ],
    config: Annotated[Path | None, typer.Option(help="YAML file; the demo without it.")] = None,
) -> None:
    """Run every variant of MODEL over the texts of --data and print what each costs and loses."""
    with clean_errors():
        examples = read_examples(data)
        plan = make_plan(load_config(config_or_demo(config)))
        rows: list[Row] = []
        with err.status("loading the reference") as status:
            for row in compare(plan, model, examples):
                rows.append(row)
                status.update(f"{row.variant} done; next variant")
        out.print(comparison_table(model, len(examples), rows))


def comparison_table(model: str, num_texts: int, rows: list[Row]) -> Table:
    """One row per variant; in brackets, the ratio to the first one, the reference."""
    first = rows[0]
    is_classifier = bool(first.measurement.labels)
    table = new_table(
        f"{model}, {num_texts} texts; sizes in MiB; in brackets: ratio to {first.variant}",
        ["variant"],
        [
            *(["accuracy"] if first.accuracy is not None else []),
            "same label" if is_classifier else "cosine",
            *("time, s", "resident", "weights", "on disk"),
        ],
    )
    for row in rows:
        cells = [row.variant]
        if row.accuracy is not None and first.accuracy is not None:
            cells.append(f"{row.accuracy:.4f} ({_ratio(row.accuracy, first.accuracy)})")
        cells.append(f"{row.agreement:.4f}")
        one, reference = row.measurement, first.measurement
        cells.append(f"{one.elapsed_s:.2f} ({_ratio(one.elapsed_s, reference.elapsed_s)})")
        for size, base in (
            (one.resident_bytes, reference.resident_bytes),
            (one.weights_bytes, reference.weights_bytes),
            (one.disk_bytes, reference.disk_bytes),
        ):
            cells.append(f"{mebibytes(size)} ({_ratio(size, base)})")
        table.add_row(*cells)
    return table


def _ratio(value: float, reference: float) -> str:
    return f"{value / reference:.2f}" if reference else "–"
