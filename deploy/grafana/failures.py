"""Panels of requests that were not served; both dashboards have them."""

from __future__ import annotations

from deploy.grafana.panels import VARIANT, Panel, lines

CHOSEN = 'model=~"$model", variant=~"$variant"'
"""What the dashboards' variables choose."""


def failures() -> list[Panel]:
    """Shares of failed and of rejected requests, by variant."""
    return [
        lines(
            "Failed",
            "Share answered with 5xx, of requests that have a variant.",
            "percentunit",
            [(f"quantserve:requests_failed:ratio{{{CHOSEN}}}", VARIANT)],
            span=8,
        ),
        lines(
            "Rejected",
            "Share answered with 429, because the queue was full.",
            "percentunit",
            [(f"quantserve:requests_rejected:ratio{{{CHOSEN}}}", VARIANT)],
            span=8,
        ),
    ]
