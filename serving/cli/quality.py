"""``quantserve quality``: how close the variants of a running service are to their references."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from serving.cli.console import clean_errors, out
from serving.cli.quality_tables import (
    drafts_table,
    labels_table,
    measures_table,
    verdict_table,
)
from serving.cli.service_client import DEFAULT_URL, Url, fetch_list
from serving.cli.verdict_history import history_table
from serving.errors import ConfigError


def quality_command(
    url: Url = DEFAULT_URL,
    model: Annotated[str | None, typer.Option(help="Name of one model; all without it.")] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Print how the verdicts came about.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(help="Of --history: seconds since 1970, or a time such as 2026-11-28T20:00Z."),
    ] = None,
) -> None:
    """Print what the service knows of its variants' quality, with counts and intervals.

    A key is read from QUANTSERVE_SERVER__API_KEY.
    """
    with clean_errors():
        if not history:
            if since is not None:
                raise ConfigError("--since: belongs to --history")
            entries = fetch_quality(url, model)
            models = fetch_list(url, "/v1/models", "quantserve")
            for entry in entries:
                _print(entry, models)
            return
        for entry in fetch_quality(url, model, "0" if since is None else since):
            _print_history(entry)


def fetch_quality(url: str, model: str | None, since: str | None = None) -> list[dict[str, Any]]:
    """The entries of ``GET /v1/quality``; raises ``ConfigError`` as ``fetch_list`` does."""
    query = {"model": model, "since": since}
    given = {name: value for name, value in query.items() if value is not None}
    return fetch_list(url, "/v1/quality", "variants", **given)


def _print(entry: dict[str, Any], models: list[dict[str, Any]]) -> None:
    out.print(verdict_table(entry))
    _print_not_kept(entry)
    for table in (measures_table(entry), drafts_table(entry, models), labels_table(entry)):
        if table is not None:
            out.print(table)
    evaluation = entry["evaluation"]
    if evaluation is not None and evaluation["state"] in ("running", "failed"):
        said = f"{evaluation['done']:,} of {evaluation['total']:,} answers {evaluation['reason']}"
        out.print(f"evaluation {evaluation['state']}: {escape(said.rstrip())}\n", soft_wrap=True)


def _print_history(entry: dict[str, Any]) -> None:
    table = history_table(entry)
    if table is None:
        out.print(f"{escape(entry['model'])}: no verdict has changed since then\n")
    else:
        out.print(table)
    _print_not_kept(entry)


def _print_not_kept(entry: dict[str, Any]) -> None:
    if entry["not_kept"]:
        out.print(f"evidence is not kept: {escape(entry['not_kept'])}\n", soft_wrap=True)
