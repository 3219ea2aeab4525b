"""A service on three Ray nodes: what clients see of it, and of a node that dies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as Folder
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.chaos.log import Path
from benchmarks.chaos.plan import GATEWAY
from benchmarks.several_nodes import (
    GATEWAYS,
    PORT,
    REPLICAS,
    ROLES,
    VARIANTS,
    NodesService,
    known_answers,
    service_on_nodes,
    strike,
)
from tests.integration.ray_nodes import NoNamespaces, RayNode
from tests.matrix import takes_all

pytestmark = pytest.mark.skipif(
    not takes_all(), reason="takes minutes; TEST_ALL=1 has it, as make test-all does"
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodesService]:
    folder: Folder = tmp_path_factory.mktemp("nodes")
    try:
        with service_on_nodes(3, folder) as service:
            yield service
    except NoNamespaces as error:
        pytest.skip(f"needs root and namespaces of Linux: {error}")


def test_every_node_has_some_of_it(service: NodesService) -> None:
    for node in service.nodes:
        titles = " ".join(service.titles(node))
        assert any(role in titles for role in ROLES), node.address


def test_every_node_answers_on_both_paths(service: NodesService) -> None:
    for node in service.nodes:
        for variant in VARIANTS:
            body = {"input": "a film", "model": f"minilm:{variant}"}
            direct = ask(node, f"/minilm/{variant}/v1/embeddings", body)
            selected = ask(node, "/v1/embeddings", body)
            assert direct["data"] == selected["data"]


def test_the_page_of_any_node_has_all_replicas_and_gateways(service: NodesService) -> None:
    for node in service.nodes:
        page = httpx.get(f"http://{node.address}:{PORT}/metrics", timeout=30).text
        values = {
            (sample.name, sample.labels.get("variant", "")): int(sample.value)
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name.startswith("quantserve_scrape_")
        }
        for kind in ("expected", "answered"):
            assert values[f"quantserve_scrape_gateways_{kind}", ""] == GATEWAYS
            for variant in VARIANTS:
                assert values[f"quantserve_scrape_replicas_{kind}", variant] == REPLICAS


async def test_a_node_that_is_killed(service: NodesService) -> None:
    victim = service.victim()
    had_a_gateway = service.has(victim, GATEWAY)
    row = await strike(service, victim, "kill", known_answers(service), seed=1)
    assert row.broken == (), row
    for path, said in row.paths.items():
        assert said.sent > 20, (path, said)  # else nothing was tried
    if not had_a_gateway:  # with one goes what it had under way
        assert not row.paths[Path.SELECTING].lost, row
        assert not row.paths[Path.SELECTING].refused, row


def ask(node: RayNode, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = httpx.post(f"http://{node.address}:{PORT}{path}", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())
