"""Queries of panels, evaluated by Prometheus's own tool over series that say what must come out."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from deploy.grafana.queries import all_queries

QUERIES = {query.panel: query.expression for query in all_queries("1h")}
INT4 = 'model="minilm", variant="int4"'
BF16 = 'model="minilm", variant="bf16"'
GENERATOR = 'model="smollm2", variant="int4"'

Shows = Callable[[str, Mapping[str, str], Mapping[str, float]], None]


@pytest.fixture
def shows(promtool: str, tmp_path: Path) -> Shows:
    """Checks what a panel shows after an hour, by its labels.

    Series are given in promtool's notation, with a value a minute.
    """

    def check(panel: str, series: Mapping[str, str], expected: Mapping[str, float]) -> None:
        case = {
            "expr": f"round({QUERIES[panel]}, 0.0001)",
            "eval_time": "1h",
            "exp_samples": [{"labels": f"{{{k}}}", "value": v} for k, v in expected.items()],
        }
        test = {
            "interval": "1m",
            "input_series": [{"series": k, "values": v} for k, v in series.items()],
            "promql_expr_test": [case],
        }
        file = tmp_path / "panel.json"  # JSON is YAML
        file.write_text(json.dumps({"rule_files": [], "tests": [test]}))
        command = [promtool, "test", "rules", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

    return check


def test_ended_replicas_are_shown_though_none_is_left(shows: Shows) -> None:
    series = {
        # Both have ended.
        f'quantserve_variant_info{{{INT4}, replica="a"}}': "1x20 stale",
        f'quantserve_variant_info{{{INT4}, replica="b"}}': "1x40 stale",
        # One of two.
        f'quantserve_variant_info{{{BF16}, replica="c"}}': "1x20 stale",
        f'quantserve_variant_info{{{BF16}, replica="d"}}': "1x60",
        # None.
        f'quantserve_variant_info{{{GENERATOR}, replica="e"}}': "1x60",
    }
    shows("Replicas that ended within an hour", series, {INT4: 2, BF16: 1, GENERATOR: 0})


def test_a_replica_too_many_makes_up_for_no_missing_one(shows: Shows) -> None:
    series = {
        f"quantserve_scrape_replicas_expected{{{INT4}}}": "2x60",
        f"quantserve_scrape_replicas_answered{{{INT4}}}": "1x60",
        f"quantserve_scrape_replicas_expected{{{BF16}}}": "1x60",
        f"quantserve_scrape_replicas_answered{{{BF16}}}": "2x60",
    }
    shows("Replicas missing on /metrics", series, {"": 1})


def test_gateways_that_are_missing_count_as_replicas_do(shows: Shows) -> None:
    series = {
        f"quantserve_scrape_replicas_expected{{{INT4}}}": "2x60",
        f"quantserve_scrape_replicas_answered{{{INT4}}}": "1x60",
        'quantserve_scrape_gateways_expected{replica="g"}': "3x60",
        'quantserve_scrape_gateways_answered{replica="g"}': "1x60",
    }
    shows("Replicas missing on /metrics", series, {"": 3})


UP = 'up{job="quantserve", instance="a"}'
EXPECTED = f"quantserve_scrape_replicas_expected{{{INT4}}}"
FIRING = 'ALERTS{alertstate="firing", service="quantserve", alertname="VariantDown"}'
FOREIGN = 'ALERTS{alertstate="firing", alertname="DiskFull"}'


@pytest.mark.parametrize("panel", ["Variants without a replica", "Alerts"])
def test_a_service_that_is_down_has_no_green_tile(shows: Shows, panel: str) -> None:
    shows(panel, {UP: "0x60", EXPECTED: "1x50 stale"}, {})


@pytest.mark.parametrize("panel", ["Variants without a replica", "Alerts"])
def test_a_service_where_nothing_is_wrong_has(shows: Shows, panel: str) -> None:
    info = f"quantserve_variant_info{{{INT4}}}"
    shows(panel, {UP: "1x60", EXPECTED: "1x60", info: "1x60", FOREIGN: "1x60"}, {"": 0})


def test_what_is_wrong_is_counted(shows: Shows) -> None:
    shows("Variants without a replica", {UP: "1x60", EXPECTED: "1x60"}, {"": 1})
    shows("Alerts", {UP: "0x60", FIRING: "1x60", FOREIGN: "1x60"}, {"": 1})


ENCODERS_AND_A_GENERATOR = {
    # Nine of ten are in time, and one is not.
    f'quantserve_request_duration_seconds_bucket{{{INT4}, le="0.222"}}': "0+9x60",
    f"quantserve_request_duration_seconds_count{{{INT4}}}": "0+10x60",
    f'quantserve_requests_total{{{INT4}, operation="embeddings", status="200"}}': "0+10x60",
    f'quantserve_requests_total{{{INT4}, operation="embeddings", status="422"}}': "0+10x60",
    # All that is answered is in time, but one is refused, and one fails.
    f'quantserve_request_duration_seconds_bucket{{{BF16}, le="0.222"}}': "0+8x60",
    f"quantserve_request_duration_seconds_count{{{BF16}}}": "0+8x60",
    f'quantserve_requests_total{{{BF16}, operation="embeddings", status="200"}}': "0+8x60",
    f'quantserve_requests_total{{{BF16}, operation="embeddings", status="429"}}': "0+1x60",
    f'quantserve_requests_total{{{BF16}, operation="embeddings", status="503"}}': "0+1x60",
    # Whole generations are slow; three of four requests have a first token in time, one fails.
    f'quantserve_request_duration_seconds_bucket{{{GENERATOR}, le="0.222"}}': "0+0x60",
    f"quantserve_request_duration_seconds_count{{{GENERATOR}}}": "0+3x60",
    f'quantserve_requests_total{{{GENERATOR}, operation="generation", status="200"}}': "0+3x60",
    f'quantserve_requests_total{{{GENERATOR}, operation="generation", status="504"}}': "0+1x60",
    f'quantserve_time_to_first_token_seconds_bucket{{{GENERATOR}, le="1.28"}}': "0+3x60",
    f"quantserve_time_to_first_token_seconds_count{{{GENERATOR}}}": "0+3x60",
    f'quantserve_variant_info{{{INT4}, task="embeddings"}}': "1x60",
    f'quantserve_variant_info{{{BF16}, task="embeddings"}}': "1x60",
    f'quantserve_variant_info{{{GENERATOR}, task="generation"}}': "1x60",
}


def test_the_share_in_time_is_of_encoders_and_of_all_their_requests(shows: Shows) -> None:
    shows("Answered within 0.222 s", ENCODERS_AND_A_GENERATOR, {INT4: 0.9, BF16: 0.8})


def test_the_share_of_first_tokens_is_of_generators(shows: Shows) -> None:
    shows("First token within 1.28 s", ENCODERS_AND_A_GENERATOR, {GENERATOR: 0.75})


def test_a_variant_that_refuses_everything_is_never_in_time(shows: Shows) -> None:
    refused = f'quantserve_requests_total{{{INT4}, operation="embeddings", status="429"}}'
    shows("Answered within 0.222 s", {refused: "0+1x60"}, {INT4: 0})


def test_in_time_is_of_encoders_and_generators_each_by_its_own_limit(shows: Shows) -> None:
    expected = {INT4: 0.9, BF16: 0.8, GENERATOR: 0.75}
    shows("In time", ENCODERS_AND_A_GENERATOR, expected)


def test_goodput_leaves_out_what_was_late(shows: Shows) -> None:
    """Nine a minute of an encoder, three first tokens a minute of a generator."""
    expected = {INT4: 0.15, BF16: 0.1333, GENERATOR: 0.05}
    shows("Goodput", ENCODERS_AND_A_GENERATOR, expected)


@pytest.mark.parametrize(
    ("verdict", "number"),
    [("indistinguishable", 0), ("not enough samples", 1), ("degraded", 2), ("failing", 3)],
)
def test_a_verdict_is_its_number(shows: Shows, verdict: str, number: int) -> None:
    labels = f'{INT4}, replica="q"'
    series = {
        f'quantserve_quality_verdict{{{labels}, verdict="{name}"}}': f"{int(name == verdict)}x60"
        for name in ("indistinguishable", "not enough samples", "degraded", "failing")
    }
    shows("Verdict", series, {INT4: number})


@pytest.mark.parametrize(
    ("panel", "series"),
    [
        ("Accuracy on labelled examples", "quantserve_quality_accuracy"),
        ("Perplexity on labelled text", "quantserve_quality_perplexity"),
    ],
)
def test_evaluations_are_shown_by_dataset(shows: Shows, panel: str, series: str) -> None:
    labels = f'{INT4}, dataset="sst2"'
    shows(panel, {f'{series}{{{labels}, replica="quality"}}': "0.75x60"}, {labels: 0.75})
