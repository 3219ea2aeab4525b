"""One input, every variant, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.config import ServerConfig
from serving.errors import (
    DeadlineExceeded,
    InternalError,
    NotReady,
    QueueFull,
    RequestError,
)
from serving.metrics import EdgeMetrics
from serving.routes.api import build_gateway_api
from serving.routes.services import Services
from serving.seams import (
    AnswerOptions,
    GenerationChunk,
    GenerationSummary,
    ServedModel,
    TokenLogprob,
    Trace,
)
from tests.unit.fakes.backends import GENERATION_TIMINGS, FakeBackends, served_model
from tests.unit.monitor import made_up_task
from tests.unit.routes.sites import MINILM, SENTIMENT, SMOLLM2, Site
from tests.unit.routes.sites import _client as client_of

MODELS = (MINILM, SENTIMENT, SMOLLM2)


@pytest.fixture
def site() -> Site:
    return site_of(*MODELS)


def site_of(*models: ServedModel) -> Site:
    """The gateway over models whose generators say what a test has them say."""
    backends, metrics = FakeBackends(models), EdgeMetrics("gateway-1")

    async def metrics_page() -> str:
        return ""

    services = Services({model.name: model for model in models}, backends, ServerConfig())
    edge = build_gateway_api(services, metrics, metrics_page)
    return Site(edge, client_of(edge, ""), backends, metrics)


async def compare(site: Site, **body: object) -> list[dict[str, Any]]:
    answer = await site.client.post("/v1/compare", json=body)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"])


async def test_embeddings_have_their_cosine_to_the_reference(site: Site) -> None:
    data = await compare(site, model="minilm", input="a cat")
    assert [entry["variant"] for entry in data] == ["fp32", "bf16", "int4"]
    vectors = [np.array(entry["answer"]["embedding"]) for entry in data]
    for entry, vector in zip(data, vectors, strict=True):
        expected = vector @ vectors[0] / np.linalg.norm(vector) / np.linalg.norm(vectors[0])
        assert entry["measures"]["cosine"] == pytest.approx(expected, abs=1e-6)
    assert data[1]["timings"] == {
        "queue_ms": 1.0,
        "tokenize_ms": 2.0,
        "core_wait_ms": 3.0,
        "forward_ms": 4.0,
        "total_ms": 16.0,
    }


async def test_only_the_chosen_variants_answer_and_are_measured_all_the_same(site: Site) -> None:
    answers = await compare(site, model="minilm", input="a cat", variants=["int4"])
    assert [answer["variant"] for answer in answers] == ["int4"]
    assert answers[0]["measures"] is not None
    assert not site.backend("minilm", "bf16").requests


async def test_labels_are_compared(site: Site) -> None:
    reference, int4 = await compare(site, model="sentiment", input="a cat")
    assert reference["measures"] == {"agreement": 1, "probability_change": 0, "divergence": 0}
    scores = [list(entry["answer"]["scores"].values()) for entry in (reference, int4)]
    # The fake's scores are independent of each other: those above one half are its labels.
    same = [score > 0.5 for score in scores[0]] == [score > 0.5 for score in scores[1]]
    assert int4["measures"]["agreement"] == float(same)
    change = max(abs(a - b) for a, b in zip(*scores, strict=True))
    assert int4["measures"]["probability_change"] == pytest.approx(change, abs=1e-6)


async def test_a_task_of_one_s_own_is_shown_and_measured_by_its_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with made_up_task.installed(tmp_path, monkeypatch):
        variants = ["fp32", "any-name", "int8-ov", "gptq", "mine"]
        site = site_of(served_model("pairs", made_up_task.NAME, variants, "mine", "fp32"))
        data = await compare(site, model="pairs", input=["a query", "a document"])
    assert [entry["variant"] for entry in data] == variants
    for entry in data:
        assert set(entry["answer"]) == {"likeness"}
        growth = entry["answer"]["likeness"] / data[0]["answer"]["likeness"]
        # The agreement would take the probes; the measure is the logarithm's exponential.
        assert entry["measures"] == {"growth": pytest.approx(growth, rel=1e-6)}
    [asked] = site.backend("pairs", "mine").requests
    assert asked.inputs == (("a query", "a document"),)


@pytest.mark.parametrize("kind", [NotReady, QueueFull, InternalError, DeadlineExceeded])
async def test_a_variant_that_fails_is_named_and_the_others_answer(
    site: Site, kind: type[RequestError]
) -> None:
    site.backend("minilm", "bf16").failure = kind("minilm:bf16 cannot")
    data = await compare(site, model="minilm", input="a cat")
    assert data[1] == {"variant": "bf16", "error": "minilm:bf16 cannot"}
    assert data[2]["measures"] is not None


async def test_a_comparison_is_no_request_of_a_variant(site: Site) -> None:
    await compare(site, model="minilm", input="a cat")
    assert (site.counted(), site.timed()) == ({}, 0)


async def test_without_the_reference_there_are_answers_and_no_measures(site: Site) -> None:
    site.backend("minilm", "fp32").failure = NotReady("minilm:fp32 is loading")
    data = await compare(site, model="minilm", input="a cat")
    assert "error" in data[0]
    assert data[1]["measures"] is None
    assert data[1]["answer"]["embedding"]


async def test_generated_text_is_scored_by_the_reference(site: Site) -> None:
    written = tuple(TokenLogprob(token, -0.1, ((token, -0.1),)) for token in (5, 6))
    for variant in ("fp32", "int4"):
        site.backends.generators["smollm2", variant].script = [
            GenerationChunk(0, "Hello", (), "length", GENERATION_TIMINGS),
            GenerationSummary(3, 0, 2, GENERATION_TIMINGS, (Trace((1, 2), written),)),
        ]
    data = await compare(site, model="smollm2", input="a prompt", max_tokens=2)
    assert data[1]["answer"] == {"text": "Hello", "tokens": 2}
    measures = data[1]["measures"]
    # The fake reference's first choice for token t is t itself, at -t / 100.
    assert measures["agreement"] == 1.0
    assert measures["perplexity_ratio"] == pytest.approx(np.exp(-0.1 + (0.05 + 0.06) / 2))
    asked = site.backends.generators["smollm2", "int4"].requests[0]
    assert asked.trace == 0
    assert asked.sampling.temperature == 0
    scored = site.backends.generators["smollm2", "fp32"].scored
    assert [(request.prompt, request.continuation) for request in scored] == [((1, 2), (5, 6))] * 2


async def test_a_ratio_beyond_all_numbers_is_null(site: Site) -> None:
    written = (TokenLogprob(5, 1e6, ((5, -0.1),)),)
    for variant in ("fp32", "int4"):
        site.backends.generators["smollm2", variant].script = [
            GenerationChunk(0, "Hello", (), "length", GENERATION_TIMINGS),
            GenerationSummary(3, 0, 1, GENERATION_TIMINGS, (Trace((1, 2), written),)),
        ]
    data = await compare(site, model="smollm2", input="a prompt")
    assert data[1]["measures"]["perplexity_ratio"] is None
    assert data[1]["measures"]["agreement"] == 1.0


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "smollm2", "truncate": True}, "truncate"),
        ({"model": "smollm2", "truncate": False}, "truncate"),
        ({"model": "minilm", "max_tokens": 32}, "max_tokens"),
        ({"model": "sentiment", "max_tokens": 5}, "max_tokens"),
        ({"model": "minilm", "response_format": {"type": "text"}}, "response_format"),
        ({"model": "smollm2", "dimensions": 2}, "dimensions"),
        ({"model": "smollm2", "prompt_name": "query"}, "prompt_name"),
        ({"model": "smollm2", "normalize": True}, "normalize"),
    ],
)
async def test_a_field_that_the_task_has_no_use_for_is_named(
    site: Site, body: dict[str, object], param: str
) -> None:
    answer = await site.client.post("/v1/compare", json={"input": "a", **body})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["param"] == param
    assert error["message"].startswith(f"{param}: model {body['model']!r} serves ")


async def test_options_of_embeddings_are_the_same_for_every_variant(site: Site) -> None:
    options: dict[str, Any] = {"dimensions": 3, "prompt_name": "query", "normalize": True}
    data = await compare(site, model="minilm", input="a cat", **options)
    assert [len(entry["answer"]["embedding"]) for entry in data] == [3, 3, 3]
    for entry in data:
        [asked] = site.backend("minilm", entry["variant"]).requests
        assert asked.options == AnswerOptions(**options)


async def test_every_variant_answers_in_the_form_that_is_asked_for(site: Site) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    variants = ("fp32", "int4")
    for variant in variants:
        site.backends.generators["smollm2", variant].script = [
            GenerationSummary(3, 0, 0, GENERATION_TIMINGS, (Trace((1, 2), ()),)),
        ]
    await compare(site, model="smollm2", input="a prompt", response_format=form)
    for variant in variants:
        [asked] = site.backends.generators["smollm2", variant].requests
        assert asked.answer_schema == schema


@pytest.mark.parametrize("variants", [["int2"], [], ["int4", "auto"], "int4"])
async def test_chosen_variants_have_to_be_served(site: Site, variants: object) -> None:
    body = {"model": "minilm", "input": "a", "variants": variants}
    answer = await site.client.post("/v1/compare", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "variants"


async def test_an_over_long_input_is_cut_if_asked_for(site: Site) -> None:
    data = await compare(site, model="minilm", input="x" * 99, truncate=True)
    assert all("answer" in entry for entry in data)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"model": "minilm"}, "input or messages"),
        ({"model": "minilm", "messages": [{"role": "user", "content": "a"}]}, "send input"),
        ({"model": "smollm2", "input": "a", "max_tokens": 1000}, "128"),
        ({"model": "smollm2", "input": ["a", "b"]}, "continues one text, not a pair"),
        ({"model": "minilm", "input": ["a", "b", "c"]}, "input"),
        ({"model": "minilm", "input": "a", "variant": "int4"}, "variant"),
        ({"model": "minilm", "input": "a", "prompt_name": "web"}, "this model has query"),
        (
            {
                "model": "smollm2",
                "input": "a",
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"nullable": True}},
                },
            },
            "keyword 'nullable' is not supported",
        ),
    ],
)
async def test_bad_bodies_are_422(site: Site, body: dict[str, object], words: str) -> None:
    answer = await site.client.post("/v1/compare", json=body)
    assert answer.status_code == 422
    assert words in answer.text
