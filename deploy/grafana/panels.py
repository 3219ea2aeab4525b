"""The kinds of panels that the dashboards are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    text,
    timeseries,
)
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableRefresh,
)

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
VARIANT = "{{model}}:{{variant}}"
"""Legend of a line that is a variant's."""

HEIGHT = 8
"""Of a panel, in Grafana's units; 24 of them are the width of the dashboard."""

COLLAPSED_IDS = 1_000
"""The first id in a collapsed row; those of the others count from 1."""

Panel = timeseries.Panel | stat.Panel | statetimeline.Panel | text.Panel


def lines(
    title: str,
    description: str,
    unit: str,
    queries: Sequence[tuple[str, str]],
    *,
    span: int = 12,
) -> timeseries.Panel:
    """Lines over time.

    Args:
        unit: One of Grafana's, e.g. ``s``, ``percentunit``.
        queries: Expression and legend of each.
        span: Width.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(span)
        .height(HEIGHT)
        .show_points(VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "mean"])
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    for number, (expression, legend) in enumerate(queries):
        panel = panel.with_target(
            prometheus.Dataquery()
            .ref_id(chr(ord("A") + number))
            .expr(expression)
            .legend_format(legend)
            .range()
        )
    return panel


def tiles(
    title: str,
    description: str,
    unit: str,
    query: tuple[str, str],
    thresholds: Sequence[Threshold],
    *,
    span: int = 8,
    height: int = 6,
) -> stat.Panel:
    """One large number for each series of the query, coloured by the thresholds."""
    expression, legend = query
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(height)
        .color_mode(BigValueColorMode.BACKGROUND)
        .graph_mode(BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(
            dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(list(thresholds))
        )
        .with_target(
            prometheus.Dataquery().ref_id("A").expr(expression).legend_format(legend).instant()
        )
    )


def bands(
    title: str,
    description: str,
    query: tuple[str, str],
    states: Mapping[int, tuple[str, str]],
    *,
    span: int = 12,
) -> statetimeline.Panel:
    """A band over time for each series, coloured and named by what its value stands for.

    Args:
        query: Expression and legend.
        states: Name and colour of each value.
    """
    expression, legend = query
    options = {
        str(value): ValueMappingResult(text=name, color=color, index=value)
        for value, (name, color) in states.items()
    }
    return (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit("none")
        .span(span)
        .height(HEIGHT)
        .merge_values(True)
        .row_height(0.8)
        .mappings([ValueMap(options=options)])
        .with_target(
            prometheus.Dataquery().ref_id("A").expr(expression).legend_format(legend).range()
        )
    )


def good_from(*steps: tuple[str, float | None]) -> list[Threshold]:
    """Thresholds: each colour with the value from which it holds, None for the first."""
    return [Threshold(color=color, value=value) for color, value in steps]


def new_dashboard(title: str, uid: str, description: str) -> dashboard.Dashboard:
    """An empty dashboard with the variables that choose data source, models and variants."""
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["quantserve"])
        .readonly()
        .refresh("5s")
        .time("now-30m", "now")
        .timezone("browser")
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Source").type("prometheus")
        )
        .with_variable(_labels_of("model", "quantserve_scrape_replicas_expected"))
        .with_variable(
            _labels_of("variant", 'quantserve_scrape_replicas_expected{model=~"$model"}')
        )
    )


def with_rows(
    board: dashboard.Dashboard, rows: Mapping[str, Sequence[Panel]]
) -> dashboard.Dashboard:
    """Add rows of panels by their titles, and give each an id of its own."""
    numbers = count(1)
    for title, panels in rows.items():
        board = board.with_row(dashboard.Row(title).id(next(numbers)))
        for panel in panels:
            board = board.with_panel(panel.id(next(numbers)))
    return board


def with_collapsed_rows(
    board: dashboard.Dashboard, rows: Mapping[str, Sequence[Panel]]
) -> dashboard.Dashboard:
    """Add last rows that ask nothing until somebody opens them."""
    numbers = count(COLLAPSED_IDS)
    for title, panels in rows.items():
        row = dashboard.Row(title).id(next(numbers))
        for panel in panels:
            row = row.with_panel(panel.id(next(numbers)))
        board = board.with_row(row)
    return board


def _labels_of(label: str, series: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(label)
        .label(label.capitalize())
        .datasource(SOURCE)
        .query(f"label_values({series}, {label})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".+")
    )
