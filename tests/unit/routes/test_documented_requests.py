"""Requests that schemathesis makes of the OpenAPI document get the answers that are promised."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from tests.fuzz.documented import Found, ask_all
from tests.unit.routes.sites import MINILM, SENTIMENT, SMOLLM2, Site, open_gateway, open_replica

CASES = 150


def of_every_task() -> Site:
    """The selecting path over a model of each task."""
    return open_gateway((MINILM, SENTIMENT, SMOLLM2))


def generator() -> Site:
    """The direct path to smollm2:int4."""
    return open_replica(SMOLLM2, "int4")


@pytest.mark.parametrize("opened", [of_every_task, open_replica, generator])
def test_every_documented_request_is_answered_as_promised(opened) -> None:
    found = Found()
    with TestClient(opened().edge, raise_server_exceptions=False) as http:
        http.headers["Authorization"] = "Bearer any"
        document = http.get("/openapi.json").json()
        ask_all(http, "", document, CASES, seed=16, found=found)
    assert not found.faults, "\n".join(found.faults)
    # Right ones, wrong ones, and those of the wrong name all came through.
    assert {200, 422} <= found.counts.keys()
    assert sum(found.counts.values()) > CASES // 2
