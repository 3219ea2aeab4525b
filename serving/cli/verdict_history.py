"""How verdicts came about: the ``history`` of an entry of ``GET /v1/quality`` as a table."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from rich.markup import escape
from rich.table import Table

from serving.cli.console import new_table, short_id
from serving.cli.quality_tables import FORMATS, estimate_text


def history_table(entry: dict[str, Any]) -> Table | None:
    """One row per change of a verdict, the oldest first; None without any.

    Args:
        entry: A ``ModelQuality`` of ``seams/quality.py`` as JSON, with its ``history``.
    """
    table = new_table(
        f"{escape(entry['model'])}: verdicts beside {escape(entry['reference'])}; times are UTC",
        ["variant", "since", "verdict", "by"],
        [],
    )
    for change in entry["history"]:
        table.add_row(
            escape(change["variant"]),
            f"{datetime.fromtimestamp(change['at'], UTC):%Y-%m-%d %H:%M:%S}",
            change["verdict"],
            escape("\n".join(_grounds(change))),
        )
    return table if table.rows else None


def _grounds(change: dict[str, Any]) -> Iterator[str]:
    """What a verdict was based on, and what it is of, line by line."""
    for report in change["origins"]:
        agreement = estimate_text(report["measures"]["agreement"], FORMATS["agreement"])
        yield f"{report['origin']} {agreement}"
    labels = change["labels"]
    if labels is not None and labels["difference"] is not None:
        yield f"{labels['dataset']} {estimate_text(labels['difference'], '+.4f')}"
    yield f"{short_id(change['artifact'])} beside {short_id(change['reference_artifact'])}"
    yield change["reason"]
