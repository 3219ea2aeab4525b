"""The queries of rendered dashboards, with their variables filled in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deploy.grafana.boards import DASHBOARDS, FOLDER
from deploy.grafana.compare_variants import PERCENTILES
from deploy.grafana.service_health import RAY_ROW


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel.

    Attributes:
        expression: PromQL without variables.
        legend: Grafana's pattern for the name of a line, e.g. ``{{model}}:{{variant}}``.
        instant: Whether only the latest value is shown.
        is_open: Whether it is shown before anybody opens a row.
        states: Name and colour of each value, where values are no numbers.
        steps: Colours of a tile, each with the value from which it holds, None for the first.
    """

    dashboard: str
    row: str
    panel: str
    unit: str
    expression: str
    legend: str
    instant: bool
    is_open: bool
    states: Mapping[int, tuple[str, str]]
    steps: Sequence[tuple[float | None, str]]


def all_queries(span: str, model: str = ".+", variant: str = ".+") -> list[Query]:
    """Every query of every panel; one that is repeated by percentile, for each.

    Panels of the row of Ray's own series are left out: only Kubernetes has them, so that nothing
    here could answer them.

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
            inside = () if row == RAY_ROW else panel.get("panels", ())
        else:
            inside = (panel,)
        for one in inside:
            head = (document["title"], row)
            found += _of_panel(one, head, variables, is_open=one is panel)
    return found


def _of_panel(
    panel: dict[str, Any], head: tuple[str, str], variables: Mapping[str, str], *, is_open: bool
) -> list[Query]:
    defaults = panel.get("fieldConfig", {}).get("defaults", {})
    states = {
        int(value): (state["text"], state["color"])
        for mapping in defaults.get("mappings", ())
        for value, state in mapping["options"].items()
    }
    thresholds = defaults.get("thresholds", {}).get("steps", ())
    steps = [(step["value"], step["color"]) for step in thresholds]
    percentiles = PERCENTILES if panel.get("repeat") == "percentile" else ("",)
    return [
        Query(
            *head,
            _fill(panel["title"], values),
            defaults["unit"],
            _fill(target["expr"], values),
            target["legendFormat"],
            target.get("instant", False),
            is_open,
            states,
            steps,
        )
        for values in ({**variables, "percentile": percentile} for percentile in percentiles)
        for target in panel.get("targets", ())
    ]


def _fill(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"${{{name}}}", value).replace(f"${name}", value)
    return text
