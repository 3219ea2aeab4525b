"""Live as long as the process answers; ready once every variant does."""

import pytest

from tests.unit.routes.sites import METRICS_PAGE


@pytest.mark.parametrize("path", ["/health", "/healthz", "/v2/health/live"])
async def test_live_does_not_ask_the_variants(site, path: str) -> None:
    site.backends.reasons["minilm", "int4"] = "failed"
    response = await site.client.get(path)
    assert (response.status_code, response.json()) == (200, {"live": True})


@pytest.mark.parametrize("path", ["/health", "/healthz", "/v2/health/live", "/v2/health/ready"])
async def test_a_load_balancer_may_ask_for_the_status_alone(site, path: str) -> None:
    assert (await site.client.head(path)).status_code == 200
    site.backends.reasons["minilm", "int4"] = "loading"
    response = await site.client.head(path)
    assert response.status_code == (503 if path.endswith("ready") else 200)


async def test_ready_once_every_variant_is(site) -> None:
    response = await site.client.get("/v2/health/ready")
    assert (response.status_code, response.json()) == (200, {"ready": True})


async def test_not_ready_names_every_missing_variant_and_why(gateway) -> None:
    gateway.backends.reasons["sentiment", "fp32"] = "failed to start: OSError: disk"
    gateway.backends.reasons["minilm", "int4"] = "loading"
    response = await gateway.client.get("/v2/health/ready")
    assert response.status_code == 503
    assert response.json() == {
        "ready": False,
        "error": "not ready: minilm:int4, sentiment:fp32",
        "states": {"ready": 3, "loading": 1, "failed": 1},
        "not_ready": [
            {
                "model": "minilm",
                "variant": "int4",
                "state": "loading",
                "failed": False,
                "reason": "loading",
            },
            {
                "model": "sentiment",
                "variant": "fp32",
                "state": "failed",
                "failed": True,
                "reason": "failed to start: OSError: disk",
            },
        ],
    }


async def test_the_gateway_shows_the_metrics_of_the_whole_service(gateway) -> None:
    response = await gateway.client.get("/metrics")
    assert response.text == METRICS_PAGE
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_a_replica_shows_no_metrics_of_its_own(replica) -> None:
    assert (await replica.client.get("/metrics")).status_code == 404


async def test_the_routes_are_documented_once(gateway) -> None:
    assert (await gateway.client.get("/docs")).status_code == 200
    paths = (await gateway.client.get("/openapi.json")).json()["paths"]
    assert {"/v1/embeddings", "/v1/classify", "/v1/models", "/healthz", "/metrics"} <= set(paths)
    assert "/v2/models/{model}/versions/{version}/infer" in paths
    assert not [path for path in paths if "path_model" in path]
