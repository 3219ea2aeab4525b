"""``quantserve models``: what a running service holds."""

from __future__ import annotations

import os
from typing import Annotated, Any

import httpx
import typer
from rich.markup import escape
from rich.table import Table

from serving.cli.console import clean_errors, mebibytes, new_table, out
from serving.errors import ConfigError

TIMEOUT_S = 10
KEY_VARIABLE = "QUANTSERVE_SERVER__API_KEY"


def models(
    url: Annotated[str, typer.Option(help="Address of the service.")] = "http://127.0.0.1:8000",
) -> None:
    """Print every variant of the running service. A key is read from QUANTSERVE_SERVER__API_KEY."""
    with clean_errors():
        out.print(models_table(_fetch(f"{url.rstrip('/')}/v1/models")["data"]))


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


def _fetch(url: str) -> dict[str, Any]:
    key = os.environ.get(KEY_VARIABLE)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        response = httpx.get(url, headers=headers, timeout=TIMEOUT_S).raise_for_status()
        answer: dict[str, Any] = response.json()
        if not all("quantserve" in entry for entry in answer["data"]):
            raise ValueError("another server answers there")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{url}: no answer from a running service: {error}") from None
    return answer
