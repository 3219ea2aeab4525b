"""Every model in every variant on every path gives its own, right answer."""

from __future__ import annotations

import base64
import concurrent.futures
import json
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from serving.checkpoint import find_checkpoint
from serving.demo import DEMO_CONFIG
from serving.demo.prepare import ENCODER_SOURCE, demo_directory
from serving.settings import load_config
from tests.integration.demo_service import KEY
from tests.integration.running_service import RunningService

VARIANTS = ["fp32", "bf16", "int8-dynamic", "int4"]
"""Of every model, on torch."""

MINILM_VARIANTS = [*VARIANTS, "int8-ov", "int8-ort"]
TEXTS = [
    "A masterpiece of slow dread and quiet jokes.",
    "The plot is a mess, the acting worse.",
    "Two hours that I will never get back.",
    "Warm, funny and beautifully shot from the first minute to the last, with a cast in top form.",
]

# Padding changes the last bits of attention, and int8 rounding makes noise of its own size of
# them; texts of one length are never padded, so that their answers can be told apart exactly.
EQUALLY_LONG = [
    "a good film with a heart",
    "a long film with no point",
    "the best cast of the year",
    "the worst plot of the year",
]

# Cosine to transformers' own fp32 answer. fp32 differs by summation order only; the others by
# their rounding, with room for these four texts (benchmarks/RESULTS.md has means over 500).
MIN_COSINE = {
    "fp32": 0.999999,
    "bf16": 0.999,
    "int8-dynamic": 0.97,
    "int4": 0.94,
    "int8-ov": 0.97,
    "int8-ort": 0.97,
}
MAX_PROBABILITY_ERROR = {"fp32": 1e-5, "bf16": 0.03, "int8-dynamic": 0.12, "int4": 0.2}

PATHS = ["direct", "header", "body", "suffix"]


@pytest.fixture(scope="module")
def expected_vectors() -> np.ndarray:
    """transformers' own mean-pooled unit vectors, float64 (texts, width)."""
    folder = find_checkpoint("minilm", ENCODER_SOURCE).folder
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state.double()
    mask = tokens["attention_mask"].unsqueeze(-1)
    pooled = (hidden * mask).sum(1) / mask.sum(1)
    return (pooled / pooled.norm(dim=1, keepdim=True)).numpy()


@pytest.fixture(scope="module")
def expected_probabilities() -> np.ndarray:
    """transformers' own probabilities, float64 (texts, labels)."""
    folder = demo_directory() / "sentiment"
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(**tokens).logits.double().softmax(1).numpy()


def ask(
    client: httpx.Client, path: str, model: str, variant: str, route: str, **body: Any
) -> httpx.Response:
    """Send ``body`` to ``model`` in ``variant``, chosen in one of the four ways."""
    match path:
        case "direct":
            return client.post(f"/{model}/{variant}/{route}", json=body)
        case "header":
            headers = {"X-Variant": variant}
            return client.post(f"/{route}", json={"model": model, **body}, headers=headers)
        case "body":
            return client.post(f"/{route}", json={"model": model, "variant": variant, **body})
        case "suffix":
            return client.post(f"/{route}", json={"model": f"{model}:{variant}", **body})
    raise AssertionError(path)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("variant", MINILM_VARIANTS)
def test_embeddings_are_those_of_the_variant(
    client: httpx.Client, expected_vectors: np.ndarray, variant: str, path: str
) -> None:
    answer = ask(client, path, "minilm", variant, "v1/embeddings", input=TEXTS)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-model"] == "minilm"
    assert answer.headers["x-variant"] == variant
    assert len(answer.headers.get_list("x-request-id")) == 1
    assert answer.json()["model"] == f"minilm:{variant}"
    vectors = np.array([entry["embedding"] for entry in answer.json()["data"]])
    cosines = (vectors * expected_vectors).sum(1) / np.linalg.norm(vectors, axis=1)
    assert cosines.min() >= MIN_COSINE[variant]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_classes_are_those_of_the_variant(
    client: httpx.Client, expected_probabilities: np.ndarray, variant: str, path: str
) -> None:
    answer = ask(client, path, "sentiment", variant, "v1/classify", input=TEXTS)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-variant"] == variant
    rows = [
        [entry["scores"]["negative"], entry["scores"]["positive"]]
        for entry in answer.json()["data"]
    ]
    errors = np.abs(np.array(rows) - expected_probabilities)
    assert errors.max() <= MAX_PROBABILITY_ERROR[variant]


def test_variants_give_different_numbers(client: httpx.Client) -> None:
    answers = {
        ask(client, "direct", "minilm", variant, "v1/embeddings", input=TEXTS).text
        for variant in MINILM_VARIANTS
    }
    assert len(answers) == len(MINILM_VARIANTS)


def test_default_variant_answers_requests_that_choose_none(client: httpx.Client) -> None:
    answer = client.post("/v1/embeddings", json={"model": "minilm", "input": "x"})
    assert answer.headers["x-variant"] == "int8-dynamic"


def test_server_timing_has_every_phase(client: httpx.Client) -> None:
    for path in ("direct", "suffix"):
        answer = ask(client, path, "minilm", "fp32", "v1/embeddings", input=TEXTS)
        phases = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
        assert list(phases) == ["queue", "tokenize", "core_wait", "forward", "total"]
        parts = sum(float(phases[name]) for name in list(phases)[:-1])
        assert 0 < parts <= float(phases["total"])


def test_concurrent_mixed_variants_each_get_their_own_answer(client: httpx.Client) -> None:
    alone = {
        (variant, text): vector_of(client, "direct", variant, text)
        for variant in VARIANTS
        for text in EQUALLY_LONG
    }
    calls = [(path, v, text) for text in EQUALLY_LONG for path in PATHS for v in VARIANTS] * 3
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda call: vector_of(client, *call), calls))
    for (_, variant, text), vector in zip(calls, answers, strict=True):
        distances = {other: np.linalg.norm(vector - alone[other, text]) for other in VARIANTS}
        assert min(distances, key=distances.__getitem__) == variant
        # A batch's other rows change only the order of sums (bf16: up to about 0.01 at the end).
        assert distances[variant] < 0.02


def vector_of(client: httpx.Client, path: str, variant: str, text: str) -> np.ndarray:
    answer = ask(client, path, "minilm", variant, "v1/embeddings", input=text)
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["data"][0]["embedding"])


@pytest.mark.parametrize("base", ["/v1", "/minilm/bf16/v1"])
def test_official_openai_client(demo: RunningService, base: str) -> None:
    with openai.OpenAI(base_url=demo.url + base, api_key=KEY) as client_:
        as_base64 = client_.embeddings.create(model="minilm:bf16", input=TEXTS)
        as_floats = client_.embeddings.create(
            model="minilm:bf16", input=TEXTS, encoding_format="float"
        )
        cut = client_.embeddings.create(model="minilm:bf16", input=TEXTS[0], dimensions=64)
        names = {model.id for model in client_.models.list()}
    np.testing.assert_allclose(
        [entry.embedding for entry in as_base64.data],
        [entry.embedding for entry in as_floats.data],
        atol=1e-6,
    )
    assert as_base64.usage.prompt_tokens > len(TEXTS)
    assert np.linalg.norm(cut.data[0].embedding) == pytest.approx(1, abs=1e-5)
    assert len(cut.data[0].embedding) == 64
    assert "minilm:bf16" in names


def test_base64_holds_little_endian_float32(client: httpx.Client) -> None:
    answers = [
        ask(client, "direct", "minilm", "fp32", "v1/embeddings", input="x", encoding_format=form)
        for form in ("base64", "float")
    ]
    encoded, plain = (answer.json()["data"][0]["embedding"] for answer in answers)
    decoded = np.frombuffer(base64.b64decode(encoded), "<f4")
    # Two passes, perhaps on different numbers of threads, which add up in different orders.
    np.testing.assert_allclose(decoded, plain, atol=1e-6)


@pytest.mark.parametrize("prefix", ["", "/minilm/fp32"])
def test_open_inference_protocol(
    client: httpx.Client, expected_vectors: np.ndarray, prefix: str
) -> None:
    model = f"{prefix}/v2/models/minilm/versions/fp32"
    metadata = client.get(model).json()
    assert metadata["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, 384]}]
    assert client.get(f"{model}/ready").status_code == 200
    tensor = {"name": "text", "shape": [len(TEXTS)], "datatype": "BYTES", "data": TEXTS}
    answer = client.post(f"{model}/infer", json={"id": "7", "inputs": [tensor]})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["id"], answer.json()["model_version"]) == ("7", "fp32")
    output = answer.json()["outputs"][0]
    vectors = np.array(output["data"]).reshape(output["shape"])
    np.testing.assert_allclose(vectors, expected_vectors, atol=1e-5)


def test_models_lists_what_each_variant_occupies(client: httpx.Client) -> None:
    entries = {
        entry["id"]: entry["quantserve"] for entry in client.get("/v1/models").json()["data"]
    }
    configured = load_config(DEMO_CONFIG).models
    assert entries.keys() == {f"{m.name}:{v.name}" for m in configured for v in m.variants}
    assert all(entry["ready"] and entry["replicas"] == 1 for entry in entries.values())
    fp32 = entries["minilm:fp32"]["weights_bytes"]
    assert entries["minilm:bf16"]["weights_bytes"] < 0.51 * fp32
    assert entries["minilm:int8-dynamic"]["weights_bytes"] <= 0.30 * fp32
    assert entries["minilm:int4"]["weights_bytes"] <= 0.25 * fp32
    # The fp32 copy is gone: what a replica keeps shrinks with its variant.
    resident = {name: entry["resident_bytes"] for name, entry in entries.items()}
    assert resident["minilm:int8-dynamic"] < resident["minilm:fp32"]


def test_api_is_documented(client: httpx.Client) -> None:
    assert client.get("/docs").status_code == 200
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/embeddings", "/v1/classify", "/v1/models", "/metrics"} <= set(paths)
    assert {"/v1/completions", "/v1/chat/completions"} <= set(paths)
    assert json.dumps(paths).count("path_model") == 0


def test_an_evaluation_without_labelled_data_is_refused(client: httpx.Client) -> None:
    answer = client.post("/v1/quality/evaluate", json={"model": "minilm"})
    assert answer.status_code == 422
    assert "quality.dataset" in answer.json()["error"]["message"]


def test_auto_names_its_choice_and_why(client: httpx.Client) -> None:
    body = {"model": "minilm:auto", "input": "A film.", "slo": {"max_weights_bytes": 60_000_000}}
    answer = client.post("/v1/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-variant"] in MINILM_VARIANTS[1:]
    assert answer.headers["x-variant-reason"]


def test_limits_without_auto_are_refused(client: httpx.Client) -> None:
    body = {"model": "minilm:int4", "input": "A film.", "slo": {"max_latency_ms": 100}}
    answer = client.post("/v1/embeddings", json=body)
    assert answer.status_code in (400, 422)
    assert "auto" in answer.json()["error"]["message"]
