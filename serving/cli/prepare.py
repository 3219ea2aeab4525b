"""``quantserve prepare``: make the artifact of every variant, ahead of serving."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serving.artifacts import ArtifactStore
from serving.cli.console import clean_errors, err, out
from serving.cli.planning import load_plan
from serving.cli.preparing import event_line, prepare_shown


def prepare_command(
    config: Annotated[Path | None, typer.Argument(help="YAML file; the demo without it.")] = None,
) -> None:
    """Make what each variant of CONFIG is opened from, where it is not in the store yet."""
    with clean_errors():
        settings, plan = load_plan(config)
        store = ArtifactStore(Path(settings.artifacts.folder))
        events = prepare_shown(plan.variants, store)
    for event in events:
        (err if event.artifact is None else out).print(event_line(event), soft_wrap=True)
    out.print(f"{len(events)} variants; artifacts in {store.folder}", soft_wrap=True, markup=False)
    if any(event.artifact is None for event in events):
        raise typer.Exit(1)
