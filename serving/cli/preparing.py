"""Shows how artifacts are made: bars while they are, a line for each when it is done."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from serving.app.plan import PlannedVariant
from serving.artifacts import ArtifactStore, PreparingEvent, prepare_all
from serving.cli.console import err, mebibytes, short_id
from serving.machine.memory import available_bytes


def prepare_shown(
    variants: Sequence[PlannedVariant], store: ArtifactStore, stop: threading.Event | None = None
) -> list[PreparingEvent]:
    """Find or make the artifact of every variant, with bars on the standard error.

    Returns:
        What became of each, in their order; of those that ``stop`` prevented, nothing.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(
        *columns,
        console=err,
        transient=True,
        redirect_stdout=False,
        disable=not err.is_terminal,
    ) as progress:
        whole = progress.add_task("preparing", total=len(variants))
        bars: dict[str, TaskID] = {}

        def show(event: PreparingEvent) -> None:
            name = event.request.name
            if event.state in ("preparing", "waiting"):
                what = "made by another process" if event.state == "waiting" else "preparing"
                if name in bars:
                    progress.update(bars[name], description=f"  {name}")
                else:
                    bars[name] = progress.add_task(f"  {name} ({what})", total=None)
                if not err.is_terminal:
                    err.print(f"{what}: {name}", markup=False)
                return
            if name in bars:
                progress.remove_task(bars.pop(name))
            progress.advance(whole)

        requests = [planned.artifact for planned in variants]
        return prepare_all(requests, store, available_bytes(), show, stop)


def event_line(event: PreparingEvent) -> str:
    """One line about what became of an artifact, in rich's markup."""
    artifact = event.artifact
    if artifact is None:
        return f"[red]failed[/]  {escape(event.reason)}"
    manifest = artifact.manifest
    how = f"made in {manifest.seconds:.1f} s" if event.state == "made" else "present"
    measured = () if manifest.agreement is None else (str(manifest.agreement),)
    told = (*measured, *manifest.notes)
    notes = f"; {'; '.join(told)}" if told else ""
    return (
        f"{short_id(artifact.id)}  {escape(event.request.name)}: {how}, "
        f"{mebibytes(artifact.size)} MiB{escape(notes)}"
    )
