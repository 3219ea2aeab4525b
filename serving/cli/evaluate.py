"""``quantserve evaluate``: a model's variants on its labelled data, on the running service."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from serving.cli.console import clean_errors, err, out
from serving.cli.quality import fetch_quality
from serving.cli.quality_tables import labels_table, verdict_table
from serving.cli.service_client import DEFAULT_URL, Url, post
from serving.errors import ConfigError

POLL_S = 1.0


def evaluate_command(
    model: Annotated[str, typer.Argument(help="Name of a model with a quality.dataset.")],
    url: Url = DEFAULT_URL,
) -> None:
    """Have each variant of MODEL answer its labelled data at low priority; print how each did.

    The service goes on by itself if this command is stopped; what it has answered of the same data
    before is not asked again. A key is read from QUANTSERVE_SERVER__API_KEY.
    """
    with clean_errors():
        post(url, "/v1/quality/evaluate", {"model": model})
        entry = _wait(url, model)
        table = labels_table(entry)
        if table is None:
            why = entry["evaluation"]["reason"] or "is any ready?"
            raise ConfigError(f"model {model!r}: no variant was evaluated; {why}")
        out.print(table)
        if left_out := entry["evaluation"]["reason"]:
            out.print(escape(left_out))
        out.print(verdict_table(entry))


def _wait(url: str, model: str) -> dict[str, Any]:
    """Show the evaluation's progress until it is done, and return the model's entry.

    Raises:
        ConfigError: It failed, or the service does not answer any more.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(f"evaluating {escape(model)}", total=None)
        while True:
            entry = _entry(url, model)
            progress = entry["evaluation"] or {"state": "idle"}
            if progress["state"] == "done":
                return entry
            if progress["state"] != "running":
                reason = progress.get("reason") or "it was broken off; start it again"
                raise ConfigError(f"model {model!r}: the evaluation failed: {reason}")
            bar.update(task, completed=progress["done"], total=progress["total"] or None)
            time.sleep(POLL_S)


def _entry(url: str, model: str) -> dict[str, Any]:
    for entry in fetch_quality(url, model):
        if entry["model"] == model:
            return entry
    raise ConfigError(f"model {model!r}: the service tells nothing of its quality")
