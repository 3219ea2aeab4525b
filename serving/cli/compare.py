"""``quantserve compare``: one model's variants on the same data, offline, without Ray."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from loadtests.cli import check_folder
from loadtests.libraries import require_libraries
from serving.app.comparison.comparing import (
    compare,
    drafts_of,
    openings,
    read_data,
    variants_of,
)
from serving.app.comparison.quantities import Row
from serving.app.plan import PlannedVariant
from serving.artifacts import Artifact, ArtifactStore
from serving.cli.comparison_tables import terminal_tables
from serving.cli.console import clean_errors, err, out
from serving.cli.planning import load_plan
from serving.cli.preparing import prepare_shown
from serving.errors import ConfigError
from serving.machine.isa import instruction_set
from serving.machine.processor import processor
from serving.tasks import TASKS


def compare_command(
    model: Annotated[str, typer.Argument(help="Name of a configured model.")],
    data: Annotated[
        Path,
        typer.Option(
            help='JSONL lines {"input", "label"}, or a text file, one text a line; for pairs, '
            'JSONL lines {"query", "document"}; of a model that generates, JSONL lines {"prompt", '
            '"completion"}, of which the completion is scored, or a text file.'
        ),
    ],
    config: Annotated[Path | None, typer.Option(help="YAML file; the demo without it.")] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="One beside the reference, may be repeated; all without it."),
    ] = None,
    out_folder: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder for comparison.md, comparison.csv and a picture (extra loadtest)."
        ),
    ] = None,
) -> None:
    """Run variants of MODEL over --data beside the reference; print what each costs and loses."""
    with clean_errors():
        if out_folder is not None:
            require_libraries()
            check_folder(out_folder)
        settings, plan = load_plan(config)
        variants = variants_of(plan, model, variant or ())
        examples = read_data(data, TASKS[variants[0].model.task])
        artifacts = _artifacts(
            [*variants, *drafts_of(plan, variants)], ArtifactStore(Path(settings.artifacts.folder))
        )
        loads = [os.getloadavg()[0]]
        rows: list[Row] = []
        with err.status("running the reference") as status:
            for row in compare(openings(variants, artifacts), examples):
                rows.append(row)
                status.update(f"{row.variant} done; next variant")
        loads.append(os.getloadavg()[0])
        title = f"{model}, {len(examples):,} inputs of {data.name}"
        for table in terminal_tables(title, rows):
            out.print(table)
        said = conditions(list(artifacts.values()), loads)
        out.print(said)
        if out_folder is not None:
            # matplotlib, which only this needs.
            from serving.cli.comparison_files import write_comparison

            for path in write_comparison(title, said, rows, out_folder):
                out.print(f"written: {path}", soft_wrap=True)


def conditions(artifacts: Sequence[Artifact], loads: Sequence[float]) -> str:
    """Processor, versions, and what else ran: the load average before and after."""
    versions = {
        package: version
        for artifact in artifacts
        for package, version in artifact.manifest.key.versions.items()
        if version
    }
    before, after = (f"{load:.1f}" for load in loads)
    return (
        "× is the ratio to the first variant, with its 95 % interval where chance has a part in "
        "it; ratios of times are of turns taken together. "
        f"{processor()}, {os.cpu_count()} cores, {instruction_set()}; "
        f"{', '.join(f'{name} {versions[name]}' for name in sorted(versions))}; "
        f"load average {before} before, {after} after"
    )


def _artifacts(variants: Sequence[PlannedVariant], store: ArtifactStore) -> dict[str, Artifact]:
    events = prepare_shown(variants, store)
    if failed := [event for event in events if event.artifact is None]:
        raise ConfigError("\n".join(event.reason for event in failed))
    return {event.request.name: event.artifact for event in events if event.artifact is not None}
