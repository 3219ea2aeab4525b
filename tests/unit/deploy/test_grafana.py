"""Dashboards: they ask only for what exists, and say what is true."""

from __future__ import annotations

import json

import pytest
import yaml
from prometheus_client.utils import floatToGoString

from deploy.grafana.boards import DASHBOARDS, FOLDER
from deploy.grafana.queries import Query, all_queries
from tests.unit.deploy.metric_names import (
    PROMETHEUS,
    ROOT,
    bounds_in,
    exported,
    names_in,
    records,
)

QUERIES = all_queries("1m")


def test_every_metric_in_a_query_exists() -> None:
    asked = set().union(*(names_in(query.expression) for query in QUERIES))
    assert asked - set(exported()) - records() == set()
    assert asked & set(exported())
    assert asked & records()


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.panel)
def test_no_variable_is_left_in_a_query(query: Query) -> None:
    assert "$" not in query.expression + query.panel


def test_tiles_ask_for_buckets_that_exist() -> None:
    bounds = [bound for query in QUERIES for bound in bounds_in(query.expression)]
    assert len(bounds) == 6
    for series, bound in bounds:
        buckets = exported()[f"quantserve_{series}_bucket"].buckets
        assert bound in {floatToGoString(one) for one in buckets}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_have_a_title_or_text_and_do_not_overlap(name: str) -> None:
    document = json.loads((FOLDER / name).read_text())
    taken: set[tuple[int, int]] = set()
    inside = [panel for row in document["panels"] for panel in row.get("panels", ())]
    panels = document["panels"] + inside
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"] or panel["options"]["content"]
        where = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(where["x"], where["x"] + where["w"])
            for y in range(where["y"], where["y"] + where["h"])
        }
        assert not taken & cells, panel["title"]
        assert where["x"] + where["w"] <= 24
        taken |= cells


def test_grafana_expects_the_scrape_interval_of_prometheus() -> None:
    provisioning = ROOT / "deploy/grafana/provisioning"
    [source] = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    scraped = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["global"]
    assert source["jsonData"]["timeInterval"] == scraped["scrape_interval"]
