"""``GET /v1/auto``: the limits that are asked about, and what is said of every variant."""

from __future__ import annotations

import pytest

from serving.seams import NO_LIMITS, AutoChoice, Limits
from serving.seams.auto import AutoView, Considered
from tests.unit.fakes.backends import FakeChooser
from tests.unit.routes.sites import Site, open_gateway

FP32 = Considered(
    "fp32",
    "p95 is 60.0 ms, the limit is 50 ms",
    ("max_latency_ms",),
    0.06,
    0.03,
    1.0,
    100,
    0,
    "probes",
)
INT4 = Considered("int4", "", (), 0.02, 0.01, 0.95, 25, 2, "requests", 7)
GONE = Considered("bf16", "not ready: loading", (), None, None, None, None, 0, None)


class ExplainingChooser(FakeChooser):
    """Says what a test has it say."""

    view = AutoView("best_effort", AutoChoice("int4", "cheapest of 1", ()), "", (FP32, INT4, GONE))

    async def explain(self, model: str, limits: Limits) -> AutoView:
        self.asked.append((model, limits))
        return self.view


@pytest.fixture
def chooser() -> ExplainingChooser:
    return ExplainingChooser(AutoChoice("int4", "cheapest of 1", ()))


@pytest.fixture
def site(chooser) -> Site:
    return open_gateway(chooser=chooser)


async def test_every_variant_has_its_figures_and_its_reason(site, chooser) -> None:
    answer = await site.client.get("/v1/auto?model=minilm")
    assert answer.status_code == 200
    said = answer.json()
    assert (said["choice"], said["reason"], said["policy"]) == (
        "int4",
        "cheapest of 1",
        "best_effort",
    )
    out, chosen, gone = said["data"]
    assert (out["in"], out["reason"], out["missed"]) == (False, FP32.out, ["max_latency_ms"])
    assert chosen == {
        "variant": "int4",
        "in": True,
        "reason": "",
        "missed": [],
        "p95_latency_ms": 20.0,
        "n": 7,
        "measured_by": "requests",
        "cost_ms": 10.0,
        "quality_low": 0.95,
        "weights_bytes": 25,
        "in_flight": 2,
    }
    assert (gone["p95_latency_ms"], gone["n"]) == (None, 0)
    assert not gone["in"]
    assert chooser.asked == [("minilm", NO_LIMITS)]
    assert not any(backend.requests for backend in site.backends.encoders.values())


async def test_a_refusal_is_an_answer(site, chooser, monkeypatch) -> None:
    monkeypatch.setattr(chooser, "view", AutoView("strict", None, "no variant meets them", (FP32,)))
    said = (await site.client.get("/v1/auto?model=minilm")).json()
    assert (said["choice"], said["reason"], said["missed"]) == (None, "no variant meets them", [])


async def test_limits_are_those_of_a_request(site, chooser) -> None:
    query = "model=minilm&max_latency_ms=50&min_quality=0.95&max_weights_bytes=1000"
    assert (await site.client.get(f"/v1/auto?{query}")).status_code == 200
    assert chooser.asked == [("minilm", Limits(0.05, 0.95, 1_000))]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("max_latency_ms=0", "max_latency_ms"),
        ("max_latency_ms=fast", "max_latency_ms"),
        ("max_latency_ms=", "max_latency_ms"),
        ("min_quality=1.5", "min_quality"),
        ("min_quality=nan", "min_quality"),
        ("max_weights_bytes=1.5", "max_weights_bytes"),
        ("max_memory=1", "max_memory"),
    ],
)
async def test_what_is_no_limit_is_refused_by_name(site, query: str, param: str) -> None:
    answer = await site.client.get(f"/v1/auto?model=minilm&{query}")
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == param


async def test_an_unknown_model_is_404(site) -> None:
    answer = await site.client.get("/v1/auto?model=gpt")
    assert answer.status_code == 404
    assert "minilm" in answer.json()["error"]["message"]
