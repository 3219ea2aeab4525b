"""Rules: checked by Prometheus's own tool, and held to the series and buckets of the service."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.utils import floatToGoString

from deploy.grafana.queries import all_queries
from tests.unit.deploy.metric_names import (
    PROMETHEUS,
    bounds_in,
    exported,
    names_in,
    records,
    rules,
)

RULE_TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
INGRESS = re.compile(r"\bhaproxy_\w+")
ALERTS = [rule for rule in rules() if "alert" in rule]


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_configuration_and_its_rules(promtool: str) -> None:
    run(promtool, "check", "config", PROMETHEUS / "prometheus.yml")


@pytest.mark.parametrize("file", RULE_TESTS, ids=lambda file: file.stem)
def test_rules_do_what_their_tests_say(promtool: str, file: Path) -> None:
    run(promtool, "test", "rules", file)


def test_every_record_has_a_test() -> None:
    asked = {
        name
        for file in RULE_TESTS
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in test.get("promql_expr_test", ())
        if case["exp_samples"]
        for name in names_in(case["expr"])
    }
    assert records() - asked == set()


@pytest.mark.parametrize("alert", [rule["alert"] for rule in ALERTS])
def test_every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not(alert: str) -> None:
    fires = {
        bool(case["exp_alerts"])
        for file in RULE_TESTS
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in test.get("alert_rule_test", ())
        if case["alertname"] == alert
    }
    assert fires == {True, False}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_happened_and_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["labels"]["service"] == "quantserve"  # by which the dashboard knows ours
    assert set(rule["annotations"]) == {"summary", "description"}
    assert f"`{rule['alert']}`" in (PROMETHEUS.parents[1] / "docs/dashboards.md").read_text()


def test_rules_ask_only_for_series_that_exist() -> None:
    asked = set().union(*(names_in(rule["expr"]) for rule in rules()))
    assert asked - set(exported()) - records() == set()
    assert asked & set(exported())


def test_names_are_those_of_the_series_kind() -> None:
    names = exported().keys()
    assert {"quantserve_requests_total", "quantserve_queued_requests"} <= names
    assert not {"quantserve_requests", "quantserve_queued_requests_total"} & names


@pytest.mark.parametrize(
    ("record", "spans"),
    [
        ("quantserve:slo_burn:", {"5m", "30m", "1h", "6h"}),
        ("quantserve:slo_requests:", {"1h", "6h"}),
    ],
)
def test_records_over_several_spans_differ_by_the_span_alone(record: str, spans: set[str]) -> None:
    found = {
        rule["record"].removeprefix(record): rule["expr"]
        for rule in rules()
        if rule.get("record", "").startswith(record)
    }
    assert found.keys() == spans
    assert len({expr.replace(f"[{span}]", "[SPAN]") for span, expr in found.items()}) == 1


def test_the_burn_alerts_count_the_requests_that_the_burn_is_of() -> None:
    expressions = {
        rule["record"]: rule["expr"] for rule in rules() if "slo" in rule.get("record", "")
    }
    for selector in re.findall(
        r"quantserve_\w+\{.*?\}|quantserve_\w+_count", expressions["quantserve:slo_requests:1h"]
    ):
        assert selector in expressions["quantserve:slo_burn:1h"]


def test_limits_of_the_objective_are_bounds_of_buckets() -> None:
    bounds = [bound for rule in rules() for bound in bounds_in(rule["expr"])]
    assert {series for series, _ in bounds} == {
        "request_duration_seconds",
        "time_to_first_token_seconds",
    }
    for series, bound in bounds:
        buckets = exported()[f"quantserve_{series}_bucket"].buckets
        assert bound in {floatToGoString(one) for one in buckets}


def test_of_the_ingress_s_series_those_are_kept_that_a_rule_or_a_dashboard_asks_for() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    [job] = [job for job in config["scrape_configs"] if job["job_name"] == "haproxy"]
    [kept] = [rule["regex"] for rule in job["metric_relabel_configs"]]
    expressions = [query.expression for query in all_queries("1m")]
    expressions += [rule["expr"] for rule in rules()]
    asked = {name for expression in expressions for name in INGRESS.findall(expression)}
    assert set(kept.split("|")) == asked
