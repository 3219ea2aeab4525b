"""``quantserve models``: what a running service holds."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from serving.cli.console import clean_errors, mebibytes, new_table, out
from serving.cli.service_client import DEFAULT_URL, Url, fetch_list


def models(url: Url = DEFAULT_URL) -> None:
    """Print every variant of the running service. A key is read from QUANTSERVE_SERVER__API_KEY."""
    with clean_errors():
        out.print(models_table(fetch_list(url, "/v1/models", "quantserve")))


def models_table(entries: list[dict[str, Any]]) -> Table:
    """One row per entry of ``GET /v1/models``."""
    table = new_table(
        "models; sizes in MiB",
        ["variant", "role", "state", "device"],
        ["weights", "KV cache", "resident", "load, s"],
    )
    for entry in entries:
        said = entry["quantserve"]
        load = said["load_seconds"]
        table.add_row(
            escape(entry["id"]),
            " ".join(mark for mark in ("default", "reference") if said[mark]),
            _state(said),
            said["device"] or "–",
            mebibytes(said["weights_bytes"]),
            mebibytes(said["kv_cache_bytes"] or None),
            mebibytes(said["resident_bytes"]),
            "–" if load is None else f"{load:.1f}",
        )
    return table


def _state(said: dict[str, Any]) -> str:
    if not said["ready"]:
        return escape(said["reason"])
    return "ready" if said["replicas"] == 1 else f"ready ×{said['replicas']}"
