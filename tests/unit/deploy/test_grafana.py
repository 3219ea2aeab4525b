"""Dashboards: they ask only for what exists, and say what is true."""

from __future__ import annotations

import json
from typing import get_args

import pytest
import yaml
from prometheus_client.utils import floatToGoString

from deploy.grafana.boards import DASHBOARDS, FOLDER
from deploy.grafana.queries import Query, all_queries
from serving.seams import Verdict
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
    assert len(bounds) == 10
    for series, bound in bounds:
        buckets = exported()[f"quantserve_{series}_bucket"].buckets
        assert bound in {floatToGoString(one) for one in buckets}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_have_a_title_or_text_and_do_not_overlap(name: str) -> None:
    document = json.loads((FOLDER / name).read_text())
    # What a closed row has inside comes to lie below it when it is opened.
    groups = [document["panels"], *(panel.get("panels", []) for panel in document["panels"])]
    panels = [panel for group in groups for panel in group]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for group in groups:
        taken: set[tuple[int, int]] = set()
        for panel in group:
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


def test_what_decides_is_eight_panels_on_top_and_the_rest_is_folded() -> None:
    panels = json.loads((FOLDER / "compare-variants.json").read_text())["panels"]
    rows = [panel for panel in panels if panel["type"] == "row"]
    assert [row["title"] for row in rows if not row["collapsed"]] == ["What decides"]
    assert panels[0]["title"] == "What decides"
    assert len([panel for panel in panels if panel["type"] != "row"]) == 8
    assert sum(len(row["panels"]) for row in rows) > 30
    assert {query.row for query in QUERIES if query.is_open and "Compare" in query.dashboard} == {
        "What decides"
    }


def test_verdicts_are_bands_of_every_verdict_by_its_name() -> None:
    panels = json.loads((FOLDER / "compare-variants.json").read_text())["panels"]
    [verdict] = [panel for panel in panels if panel["type"] == "state-timeline"]
    [mapping] = verdict["fieldConfig"]["defaults"]["mappings"]
    named = {option["text"] for option in mapping["options"].values()}
    assert named == set(get_args(Verdict))
