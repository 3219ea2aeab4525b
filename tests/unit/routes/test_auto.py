"""Requests that leave the variant to the service: every way to ask, what they get, every error."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest

from serving.errors import NotReady
from serving.metrics import Labels
from serving.seams import NO_LIMITS, AutoChoice, Limits
from tests.unit.fakes.backends import FakeChooser
from tests.unit.routes.sites import (
    CLASSIFY,
    EMBEDDINGS,
    MINILM,
    MODELS,
    SENTIMENT,
    SMOLLM2,
    Site,
    infer_body,
    open_gateway,
    open_replica,
)

INT4 = AutoChoice("int4", "cheapest of 3", ())
AUTO_BY_DEFAULT = replace(MINILM, default_variant="auto")
COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
INFER = "/v2/models/minilm/infer"
FULL = {"max_latency_ms": 50, "min_quality": 0.95, "max_weights_bytes": 1_000}
FULL_HEADERS = {"X-Max-Latency-Ms": "50", "X-Min-Quality": "0.95", "X-Max-Weights-Bytes": "1000"}
AT_LEAST = "slo.max_latency_ms: Input should be greater than or equal to"
FULL_LIMITS = Limits(max_latency_s=0.05, min_quality=0.95, max_weights_bytes=1_000)


@pytest.fixture
def chooser() -> FakeChooser:
    return FakeChooser(INT4)


@pytest.fixture
def site(chooser: FakeChooser) -> Site:
    return open_gateway((*MODELS, SMOLLM2), chooser=chooser)


def body(**changes: Any) -> dict[str, Any]:
    return {"model": "minilm:auto", "input": "a cat", **changes}


async def embed(
    site: Site, headers: dict[str, str] | httpx.Headers | None = None, **changes: Any
) -> Any:
    return await site.client.post(EMBEDDINGS, json=body(**changes), headers=headers or {})


def says(response: httpx.Response, status: int, code: str, param: str | None) -> str:
    """Check an error's kind, and return its message."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    return error["message"]


@pytest.mark.parametrize(
    ("changes", "headers"),
    [
        ({"model": "minilm:auto"}, {}),
        ({"model": "minilm"}, {"X-Variant": "auto"}),
        ({"model": "minilm", "variant": "auto"}, {}),
        ({"model": "minilm:auto", "variant": "auto"}, {"X-Variant": "auto"}),
    ],
)
async def test_each_place_of_a_request_may_say_auto(site, chooser, changes, headers) -> None:
    response = await embed(site, headers, **changes)
    assert response.status_code == 200
    assert response.json()["model"] == "minilm:int4"
    assert len(site.backend("minilm", "int4").requests) == 1
    assert response.headers["X-Variant"] == "int4"
    assert response.headers["X-Variant-Reason"] == "cheapest of 3"
    assert "X-SLO-Missed" not in response.headers
    assert chooser.asked == [("minilm", NO_LIMITS)]


@pytest.mark.parametrize("route", ["/v2/models/minilm/versions/auto/infer", INFER])
async def test_a_version_may_be_auto(chooser, route: str) -> None:
    site = open_gateway([AUTO_BY_DEFAULT], chooser=chooser)
    response = await site.client.post(route, json=infer_body())
    assert response.status_code == 200
    assert response.json()["model_version"] == "int4"


@pytest.mark.parametrize(
    ("route", "changes"),
    [
        (CLASSIFY, {"model": "sentiment:auto", "input": "good"}),
        (COMPLETIONS, {"model": "smollm2:auto", "prompt": "a"}),
        (COMPLETIONS, {"model": "smollm2:auto", "prompt": "a", "stream": True}),
        (CHAT, {"model": "smollm2:auto", "messages": [{"role": "user", "content": "a"}]}),
    ],
)
async def test_every_route_of_openai_may_ask_for_auto(site, chooser, route, changes) -> None:
    response = await site.client.post(route, json={**changes, "slo": FULL})
    assert response.status_code == 200
    model = changes["model"].removesuffix(":auto")
    assert f'"model":"{model}:int4"' in response.text
    assert response.headers["X-Variant"] == "int4"
    assert response.headers["X-Variant-Reason"] == "cheapest of 3"
    assert chooser.asked == [(model, FULL_LIMITS)]


async def test_auto_may_be_the_default(chooser) -> None:
    site = open_gateway([AUTO_BY_DEFAULT], chooser=chooser)
    assert (await embed(site, model="minilm")).json()["model"] == "minilm:int4"
    assert (await embed(site, model="minilm:fp32")).json()["model"] == "minilm:fp32"
    assert len(chooser.asked) == 1
    entries = (await site.client.get("/v1/models")).json()["data"]
    assert [entry["quantserve"]["default"] for entry in entries] == [False] * 3


@pytest.mark.parametrize("route", ["/v2/models/minilm", "/v2/models/minilm/versions/auto"])
async def test_auto_is_ready_as_soon_as_one_variant_is(chooser, route: str) -> None:
    site = open_gateway([AUTO_BY_DEFAULT], chooser=chooser)
    site.backends.reasons = {("minilm", "fp32"): "loading", ("minilm", "bf16"): "loading"}
    metadata = (await site.client.get(route)).json()
    assert metadata["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, 8]}]
    assert (metadata["platform"], metadata["versions"]) == ("torch", ["fp32", "bf16", "int4"])
    ready = await site.client.get(f"{route}/ready")
    assert ready.json() == {"name": "minilm", "version": "auto", "ready": True}
    site.backends.reasons["minilm", "int4"] = "loading"
    ready = await site.client.get(f"{route}/ready")
    assert (ready.status_code, ready.json()) == (503, {"error": "minilm:auto: loading"})


async def test_limits_may_stand_in_the_body_or_in_headers_or_in_both(site, chooser) -> None:
    for slo, headers in ((FULL, {}), (None, FULL_HEADERS), (FULL, FULL_HEADERS)):
        assert (await embed(site, headers, slo=slo)).status_code == 200
    split = {"max_latency_ms": 50, "max_weights_bytes": 1_000}
    assert (await embed(site, {"X-Min-Quality": "0.95"}, slo=split)).status_code == 200
    assert [limits for _, limits in chooser.asked] == [FULL_LIMITS] * 4


async def test_limits_are_flat_among_the_parameters_of_the_other_protocol(site, chooser) -> None:
    parameters = {"max_latency_ms": 50, "min_quality": 0.95}
    response = await site.client.post(
        "/v2/models/minilm/versions/auto/infer",
        json=infer_body(parameters=parameters),
        headers={"X-Max-Weights-Bytes": "1000"},
    )
    assert response.status_code == 200
    assert chooser.asked == [("minilm", FULL_LIMITS)]


async def test_missed_limits_are_named(site, chooser) -> None:
    missed = ("max_latency_ms", "min_quality")
    chooser.choice = AutoChoice("bf16", "no variant meets the limits", missed)
    response = await embed(site, slo=FULL)
    assert response.status_code == 200
    assert response.headers["X-Variant"] == "bf16"
    assert response.headers["X-Variant-Reason"] == "no variant meets the limits"
    assert response.headers["X-SLO-Missed"] == "max_latency_ms, min_quality"


async def test_choices_are_counted_by_what_they_miss(site, chooser) -> None:
    for missed in ((), ("min_quality",), ("max_latency_ms", "min_quality"), ()):
        chooser.choice = AutoChoice("int4", "", missed)
        await embed(site)
    await embed(site, model="minilm:int4")
    value = site.metrics.registry.get_sample_value
    labels = {"model": "minilm", "variant": "int4", "replica": "gateway-1"}
    counted = {
        missed: value("quantserve_auto_requests_total", {**labels, "missed": missed})
        for missed in ("none", "min_quality", "several", "max_latency_ms")
    }
    assert counted == {"none": 2, "min_quality": 1, "several": 1, "max_latency_ms": None}
    assert site.counted() == {(Labels("minilm", "int4", "embeddings"), "200"): 5}


async def test_a_refusal_is_503_with_the_table(site, chooser) -> None:
    chooser.choice = NotReady("minilm:auto: no variant meets max_latency_ms 1: fp32 (p95 …)")
    response = await embed(site, slo={"max_latency_ms": 1})
    message = says(response, 503, "variant_not_ready", None)
    assert message == chooser.choice.message
    assert response.headers["X-Variant"] == "auto"
    assert "X-Variant-Reason" not in response.headers
    assert site.counted() == {(Labels("minilm", "auto", "embeddings"), "503"): 1}


@pytest.mark.parametrize(
    ("headers", "changes"),
    [
        ({"X-Variant": "auto"}, {"model": "minilm:int4"}),
        ({}, {"model": "minilm:auto", "variant": "int4"}),
    ],
)
async def test_auto_beside_a_variant_is_a_conflict(site, headers, changes) -> None:
    message = says(await embed(site, headers, **changes), 400, "conflicting_choice", "variant")
    assert "'auto'" in message
    assert "'int4'" in message


@pytest.mark.parametrize(
    ("header", "value", "field"),
    [
        ("X-Max-Latency-Ms", "51", "max_latency_ms"),
        ("X-Min-Quality", "0.9", "min_quality"),
        ("X-Max-Weights-Bytes", "999", "max_weights_bytes"),
    ],
)
async def test_a_limit_with_two_values_is_a_conflict(site, chooser, header, value, field) -> None:
    message = says(await embed(site, {header: value}, slo=FULL), 400, "conflicting_choice", field)
    assert message == (
        f"header {header} says {value}, but {field} is also given as {FULL[field]}; give one"
    )
    twice = httpx.Headers([(header, value), (header, FULL_HEADERS[header])])
    says(await embed(site, twice), 400, "conflicting_choice", field)
    assert chooser.asked == []


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Max-Latency-Ms", "fast"),
        ("X-Max-Latency-Ms", ""),
        ("X-Max-Latency-Ms", "0"),
        ("X-Max-Latency-Ms", "-5"),
        ("X-Max-Latency-Ms", "1e-322"),
        ("X-Max-Latency-Ms", "inf"),
        ("X-Max-Latency-Ms", "nan"),
        ("X-Min-Quality", "1.01"),
        ("X-Min-Quality", "nan"),
        ("X-Min-Quality", "95%"),
        ("X-Max-Weights-Bytes", "1.5"),
        ("X-Max-Weights-Bytes", "0"),
        ("X-Max-Weights-Bytes", "9" * 400),
    ],
)
async def test_a_wrong_header_is_named(site, chooser, header: str, value: str) -> None:
    for slo in (None, FULL):
        response = await embed(site, {header: value}, slo=slo)
        message = says(response, 422, "invalid_field", header)
        assert message.startswith(f"header {header}: Input should be ")
    assert chooser.asked == []


@pytest.mark.parametrize(
    ("slo", "message"),
    [
        ({"max_latency": 5}, "slo.max_latency: unknown field"),
        ({"max_latency_ms": 0}, f"{AT_LEAST} 0.001"),
        ({"max_latency_ms": 1e-322}, f"{AT_LEAST} 0.001"),  # 0 in seconds
        ({"min_quality": 2}, "slo.min_quality: Input should be less than or equal to 1"),
        ({"max_weights_bytes": 0.5}, "slo.max_weights_bytes: Input should be a valid integer"),
        ({"max_weights_bytes": 10**400}, "slo.max_weights_bytes: Input should be less than"),
        (5, "slo: Input should be a valid dictionary"),
    ],
)
@pytest.mark.parametrize("route", [EMBEDDINGS, COMPLETIONS])
async def test_a_wrong_limit_in_the_body_is_named(site, route, slo, message: str) -> None:
    changes = {"model": "smollm2:auto", "prompt": "a"} if route == COMPLETIONS else body()
    response = await site.client.post(route, json={**changes, "slo": slo})
    assert says(response, 422, "invalid_field", "slo").startswith(message)


@pytest.mark.parametrize("field", ["max_latency_ms", "min_quality", "max_weights_bytes"])
async def test_limits_for_a_variant_that_is_chosen_are_refused(site, field: str) -> None:
    for model in ("minilm:int4", "minilm"):
        response = await embed(site, slo={field: 1}, model=model)
        message = says(response, 422, "invalid_field", "slo")
        assert "are for the variant 'auto'" in message
    header = {"X-" + field.replace("_", "-"): "1"}
    says(await embed(site, header, model="minilm:int4"), 422, "invalid_field", "slo")
    assert (await embed(site, slo={}, model="minilm:int4")).status_code == 200


async def test_a_model_of_another_task_is_refused_before_the_choice(site, chooser) -> None:
    response = await embed(site, model="sentiment:auto")
    says(response, 422, "invalid_field", "model")
    assert chooser.asked == []


async def test_a_path_cannot_be_auto(site, chooser) -> None:
    for route in (f"/minilm/auto{EMBEDDINGS}", "/minilm/auto/v1/models"):
        response = await site.client.request(
            "POST" if route.endswith(EMBEDDINGS) else "GET", route, json=body()
        )
        message = says(response, 404, "not_found", "variant")
        assert message.endswith("; 'auto' is chosen without a path of its own")
    assert chooser.asked == []


async def test_the_direct_path_refuses_auto_and_limits() -> None:
    replica = open_replica(SENTIMENT)
    for changes, status, message in (
        ({"variant": "auto"}, 400, "names 'auto'"),
        ({"model": "sentiment:auto"}, 400, "names 'auto'"),
        ({"slo": {"min_quality": 0.5}}, 422, "are for the variant 'auto'"),
    ):
        response = await replica.client.post(CLASSIFY, json={"input": "good", **changes})
        assert response.status_code == status
        assert message in response.json()["error"]["message"]


async def test_openapi_describes_the_limits(site) -> None:
    schemas = (await site.client.get("/openapi.json")).json()["components"]["schemas"]
    assert set(schemas["Slo"]["properties"]) == set(FULL)
    assert schemas["Slo"]["additionalProperties"] is False
    for name in ("EmbeddingsBody", "ClassifyBody", "CompletionsBody", "ChatBody"):
        assert "slo" in schemas[name]["properties"]
