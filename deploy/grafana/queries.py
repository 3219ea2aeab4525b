"""The queries of rendered dashboards, with their variables filled in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy.grafana.boards import DASHBOARDS, FOLDER
from deploy.grafana.compare_variants import PERCENTILES


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel.

    Attributes:
        expression: PromQL without variables.
        legend: Grafana's pattern for the name of a line, e.g. ``{{model}}:{{variant}}``.
        instant: Whether only the latest value is shown.
    """

    dashboard: str
    row: str
    panel: str
    unit: str
    expression: str
    legend: str
    instant: bool


def all_queries(span: str, model: str = ".+", variant: str = ".+") -> list[Query]:
    """Every query of every panel; one that is repeated by percentile, for each.

    Panels of a collapsed row are left out: they show series that only Kubernetes has, so that
    nothing here could answer them.

    Args:
        span: What stands for the time range and the span of rates, e.g. ``1m``.
        model: Regular expression; likewise ``variant``.
    """
    variables = {"model": model, "variant": variant, "__range": span, "__rate_interval": span}
    return [
        query
        for name in DASHBOARDS
        for query in _of_dashboard(json.loads((FOLDER / name).read_text()), variables)
    ]


def _of_dashboard(document: dict[str, Any], variables: Mapping[str, str]) -> list[Query]:
    found, row = [], ""
    for panel in document["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
            continue
        percentiles = PERCENTILES if panel.get("repeat") == "percentile" else ("",)
        for percentile in percentiles:
            values = {**variables, "percentile": percentile}
            found += [
                Query(
                    document["title"],
                    row,
                    _fill(panel["title"], values),
                    panel["fieldConfig"]["defaults"]["unit"],
                    _fill(target["expr"], values),
                    target["legendFormat"],
                    target.get("instant", False),
                )
                for target in panel.get("targets", ())
            ]
    return found


def _fill(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"${{{name}}}", value).replace(f"${name}", value)
    return text
