"""Short plans against the null server."""

from __future__ import annotations

from typing import Any

from loadtests.plan import LoadPlan


def make_plan(
    url: str = "http://127.0.0.1:1",
    scenario: dict[str, Any] | None = None,
    operation: str = "embeddings",
    **fields: Any,
) -> LoadPlan:
    """One scenario; a turn takes a quarter of a second for 20 requests, 4 of them warm-up."""
    base: dict[str, Any] = {
        "model": "m",
        "operation": operation,
        "inputs": {"synthetic": {}},
        "arrivals": {"kind": "constant", "rate": 80},
    }
    times = {"rounds": 1, "duration_s": 0.2, "warmup_s": 0.05, "grace_s": 5}
    return LoadPlan.model_validate(
        {"target": {"url": url}, "scenarios": [{**base, **(scenario or {})}], **times, **fields}
    )
