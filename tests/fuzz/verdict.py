"""What is wrong with an answer, whatever was asked."""

from __future__ import annotations

import json
from collections.abc import Mapping

STATUSES = frozenset({400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 503, 504})
"""Of errors; no other is documented, and of those from 500 on two."""

PROXY_S_PAGE = b"<html><body><h1>"
"""Of what HAProxy cannot read; docs/deployment.md."""

OF_OPENAI = {"message", "type", "code", "param"}


def fault(
    status: int, headers: Mapping[str, str], body: bytes, may_be_unreadable: bool = False
) -> str | None:
    """Why an answer is none that the documents promise; None if it is one.

    Args:
        status: Of the answer.
        headers: By their names in small letters.
        body: Decoded.
        may_be_unreadable: Whether what was sent may be no HTTP, which gets the proxy's own page.
    """
    kind = headers.get("content-type", "")
    if status < 400:
        return None
    if status not in STATUSES:
        return f"status {status}: {body[:200]!r}"
    if may_be_unreadable and status in (400, 408, 413, 422) and body.startswith(PROXY_S_PAGE):
        return None
    if not body:  # of HEAD
        return None
    if not kind.startswith("application/json"):
        return f"status {status} as {kind!r}: {body[:200]!r}"
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return f"status {status} in another shape: {body[:200]!r}"
    is_ours = isinstance(error, str) or (isinstance(error, dict) and error.keys() == OF_OPENAI)
    return None if is_ours else f"status {status} in another shape: {body[:200]!r}"
