"""Asking a running service, for the commands that print what it says."""

from __future__ import annotations

import os
from typing import Annotated, Any

import httpx
import typer

from serving.errors import ConfigError

TIMEOUT_S = 10
KEY_VARIABLE = "QUANTSERVE_SERVER__API_KEY"

Url = Annotated[str, typer.Option(help="Address of the service.")]
DEFAULT_URL = "http://127.0.0.1:8000"


def fetch_list(url: str, path: str, part: str, **query: str) -> list[dict[str, Any]]:
    """Return the entries of a list that the service at ``url`` shows under ``path``.

    Args:
        part: What every entry has if the service answers there, and not another server.

    Raises:
        ConfigError: No answer, or a refusal; the service's own words.
    """
    answer = _send("GET", f"{url.rstrip('/')}{path}", params=query)
    entries = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and part in entry for entry in entries
    ):
        raise _no_answer(f"{url.rstrip('/')}{path}", "another server answers there")
    return entries


def post(url: str, path: str, body: dict[str, Any]) -> None:
    """Send ``body`` to the service; raises as ``fetch_list`` does."""
    _send("POST", f"{url.rstrip('/')}{path}", json=body)


def _send(method: str, url: str, **content: Any) -> Any:
    key = os.environ.get(KEY_VARIABLE)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        response = httpx.request(method, url, headers=headers, timeout=TIMEOUT_S, **content)
        answer = response.json()
        if response.is_success:
            return answer
        raise ConfigError(f"{url}: {answer['error']['message']}")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError) as error:
        raise _no_answer(url, str(error)) from None


def _no_answer(url: str, why: str) -> ConfigError:
    return ConfigError(f"{url}: no answer from a running service: {why}")
