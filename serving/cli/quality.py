"""``quantserve quality``: how close the variants of a running service are to their references."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from serving.cli.console import clean_errors, out
from serving.cli.quality_tables import labels_table, measures_table, verdict_table
from serving.cli.service_client import DEFAULT_URL, Url, fetch_list


def quality_command(
    url: Url = DEFAULT_URL,
    model: Annotated[str | None, typer.Option(help="Name of one model; all without it.")] = None,
) -> None:
    """Print what the service knows of its variants' quality, with counts and intervals.

    A key is read from QUANTSERVE_SERVER__API_KEY.
    """
    with clean_errors():
        for entry in fetch_quality(url, model):
            _print(entry)


def fetch_quality(url: str, model: str | None) -> list[dict[str, Any]]:
    """The entries of ``GET /v1/quality``; raises ``ConfigError`` as ``fetch_list`` does."""
    query = {} if model is None else {"model": model}
    return fetch_list(url, "/v1/quality", "variants", **query)


def _print(entry: dict[str, Any]) -> None:
    out.print(verdict_table(entry))
    for table in (measures_table(entry), labels_table(entry)):
        if table is not None:
            out.print(table)
    evaluation = entry["evaluation"]
    if evaluation is not None and evaluation["state"] in ("running", "failed"):
        said = f"{evaluation['done']:,} of {evaluation['total']:,} answers {evaluation['reason']}"
        out.print(f"evaluation {evaluation['state']}: {escape(said.rstrip())}\n", soft_wrap=True)
