"""The real Prometheus scrapes the service under load; rules and dashboards get their values."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from deploy.grafana.pictures import draw
from deploy.grafana.queries import Query, all_queries
from tests.integration.running_prometheus import (
    RunningPrometheus,
    exporter_port,
    running_prometheus,
)
from tests.integration.running_service import RunningService
from tests.integration.test_answers import TEXTS, ask
from tests.unit.deploy.metric_names import records, rules

LOAD_S = 300
PAUSE_S = 0.5  # the quality of the variants is probed only while they have nothing else to do
VARIANTS = ["fp32", "int4"]
# No variant of the demo drafts.
QUERIES = [query for query in all_queries(span="1m") if "drafted_tokens" not in query.expression]
LABELLED = ("sentiment", "smollm2")
ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "minilm": ("v1/embeddings", {"input": TEXTS}),
    "sentiment": ("v1/classify", {"input": TEXTS}),
    "smollm2": ("v1/completions", {"prompt": TEXTS[0], "max_tokens": 4, "temperature": 0}),
}

RATIO = "quantserve:request_duration_seconds:{}_to_reference"


@pytest.fixture(scope="module")
def prometheus(
    demo: RunningService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningPrometheus]:
    targets = {
        "quantserve": f"127.0.0.1:{demo.port}",
        "haproxy": f"127.0.0.1:{exporter_port(demo)}",
    }
    with running_prometheus(targets, tmp_path_factory.mktemp("prometheus")) as server:
        yield server


@pytest.fixture(scope="module")
def loaded(prometheus: RunningPrometheus, client: httpx.Client) -> RunningPrometheus:
    """Prometheus after a load that lasts until every query has an answer, or too long.

    Accuracy and perplexity are known once an evaluation is over, which the load delays; a variant's
    ratio to its reference some seconds after the rates of both.
    """
    for model in LABELLED:
        assert client.post("/v1/quality/evaluate", json={"model": model}).status_code == 202
    missing = [query.expression for query in QUERIES] + sorted(records())
    missing += [
        f'{RATIO.format("p99")}{{model="{model}", variant="{variant}"}}'
        for model in ROUTES
        for variant in VARIANTS
    ]
    deadline = time.monotonic() + LOAD_S
    while missing and time.monotonic() < deadline:
        for model, (route, body) in ROUTES.items():
            assert ask(client, "suffix", model, "auto", route, **body).status_code == 200
            for variant in VARIANTS:
                for path in ("direct", "suffix"):
                    answer = ask(client, path, model, variant, route, **body)
                    assert answer.status_code == 200, answer.text
        time.sleep(PAUSE_S)
        missing = [expression for expression in missing if not prometheus.values(expression)]
    prometheus.at = time.time()  # however long the tests take, the load is a moment ago
    return prometheus


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: f"{query.dashboard}: {query.panel}")
def test_every_query_of_every_panel_has_an_answer(loaded: RunningPrometheus, query: Query) -> None:
    assert loaded.values(query.expression), query.expression


@pytest.mark.parametrize("record", sorted(records()))
def test_every_record_has_values(loaded: RunningPrometheus, record: str) -> None:
    assert loaded.values(record)


def test_every_rule_is_evaluated_without_an_error(loaded: RunningPrometheus) -> None:
    evaluated = [rule for group in loaded.get("rules")["groups"] for rule in group["rules"]]
    assert len(evaluated) == len(rules())
    assert {(rule["name"], rule["health"], rule.get("lastError", "")) for rule in evaluated} == {
        (rule.get("record") or rule["alert"], "ok", "") for rule in rules()
    }


def test_targets_are_up_and_nothing_says_that_variants_are_missing(
    loaded: RunningPrometheus,
) -> None:
    assert set(loaded.values("up == 1")) == set(loaded.values("up"))
    assert len(loaded.values("up")) == 2
    names = "QuantserveDown|VariantDown|ScrapeIncomplete|RequestsFailing|AutoFailing|IngressFailing"
    assert loaded.values(f'ALERTS{{alertname=~"{names}"}}') == {}


def test_references_and_ratios_are_those_of_the_service(
    loaded: RunningPrometheus, client: httpx.Client
) -> None:
    entries = [entry["quantserve"] for entry in client.get("/v1/models").json()["data"]]
    references = {entry["model"]: entry for entry in entries if entry["reference"]}
    assert set(loaded.values("quantserve:reference")) == {
        (model, entry["variant"]) for model, entry in references.items()
    }
    ratios = {
        (entry["model"], entry["variant"]): pytest.approx(
            entry["weights_bytes"] / references[entry["model"]]["weights_bytes"]
        )
        for entry in entries
    }
    assert loaded.values("quantserve:weights_bytes:mean_to_reference") == ratios


def test_every_variant_s_refusals_are_counted_from_0_on_both_paths(
    loaded: RunningPrometheus, client: httpx.Client
) -> None:
    entries = [entry["quantserve"] for entry in client.get("/v1/models").json()["data"]]
    # The gateway's, and one of each replica.
    expected = {(entry["model"], entry["variant"]): 1 + entry["replicas"] for entry in entries}
    counted = loaded.values('count by (model, variant) (quantserve_requests_total{status="429"})')
    assert counted == expected


def test_answers_of_the_ingress_belong_to_the_routes_that_were_asked(
    loaded: RunningPrometheus,
) -> None:
    failed = loaded.values("quantserve:ingress_failed:ratio")
    asked = {(f"http-{model}--{variant}",) for model in ROUTES for variant in VARIANTS}
    assert asked | {("http-gateway",)} <= set(failed)
    assert {failed[route] for route in asked} == {0}


def test_rates_belong_to_the_variants_that_were_asked(loaded: RunningPrometheus) -> None:
    asked = {(model, variant) for model in ROUTES for variant in VARIANTS}
    assert asked <= set(loaded.values("quantserve:requests:rate1m > 0"))
    for percentile in ("p50", "p95", "p99"):
        ratios = loaded.values(RATIO.format(percentile))
        assert asked <= set(ratios)
        assert {ratios[model, "fp32"] for model in ROUTES} == {1}


def test_pictures_show_lines_bars_and_bands(loaded: RunningPrometheus) -> None:
    parts = Counter((query.dashboard, query.row, query.panel) for query in QUERIES)
    single = [one for one in QUERIES if parts[one.dashboard, one.row, one.panel] == 1]
    tiles = [query for query in single if query.instant][:2]
    bands = [query for query in single if query.states][:1]
    graphs = [query for query in single if not query.instant and not query.states][:2]
    with httpx.Client(base_url=loaded.url, timeout=30) as http:
        figure = draw("Some panels", tiles + bands + graphs, http, seconds=120)
    assert [bool(axes.patches) for axes in figure.axes] == [True, True, True, False, False]
    assert [bool(axes.lines) for axes in figure.axes] == [False, False, False, True, True]
