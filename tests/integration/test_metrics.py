"""``/metrics`` agrees exactly with the requests sent."""

from __future__ import annotations

from collections import Counter
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.test_answers import MINILM_VARIANTS, PATHS, TEXTS, ask

Sample = tuple[str, str, str, str]


def read(client: httpx.Client) -> Counter[Sample]:
    """Every sample summed over replicas, by name, model, variant and status."""
    page = client.get("/metrics")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    sums: Any = Counter()  # of floats
    for family in text_string_to_metric_families(page.text):
        for sample in family.samples:
            assert "replica" in sample.labels, sample
            labels = sample.labels
            # Dropped samples are counted by model, and gateways belong to none.
            model, variant = labels.get("model", ""), labels.get("variant", "")
            key = (sample.name, model, variant, labels.get("status", ""))
            if "le" not in labels:
                sums[key] += sample.value
    return sums


def test_counts_equal_the_requests_sent(client: httpx.Client) -> None:
    before = read(client)
    tokens: Counter[str] = Counter()
    for number, variant in enumerate(MINILM_VARIANTS, 1):
        for path in PATHS * number:
            answer = ask(client, path, "minilm", variant, "v1/embeddings", input=TEXTS)
            assert answer.status_code == 200
            tokens[variant] += answer.json()["usage"]["prompt_tokens"]
        refused = ask(client, "direct", "minilm", variant, "v1/embeddings", input=TEXTS, nope=1)
        assert refused.status_code == 422
    client.post("/v1/embeddings", json={"model": "nothing", "input": "x"})
    client.post("/v1/embeddings", json={"model": "minilm:nothing", "input": "x"})
    grown = read(client) - before

    for number, variant in enumerate(MINILM_VARIANTS, 1):
        sent = number * len(PATHS)

        def of(name: str, status: str = "", variant: str = variant) -> float:
            return grown[f"quantserve_{name}", "minilm", variant, status]

        assert of("requests_total", "200") == sent
        assert of("requests_total", "422") == 1
        assert of("request_duration_seconds_count") == sent
        for phase in ("queue", "tokenize", "forward"):
            assert of(f"{phase}_duration_seconds_count") == sent
        assert of("input_tokens_total") == of("batch_tokens_sum") == tokens[variant]
        assert of("batch_size_sum") == sent * len(TEXTS)
    assert not [key for key in grown if "nothing" in key]


def test_gauges_describe_every_variant(client: httpx.Client) -> None:
    samples = read(client)
    entries = client.get("/v1/models").json()["data"]
    for entry in entries:
        said = entry["quantserve"]
        name = (said["model"], said["variant"], "")
        assert samples["quantserve_weights_bytes", *name] == said["weights_bytes"]
        assert samples["quantserve_load_seconds", *name] == said["load_seconds"]
        assert samples["quantserve_variant_info", *name] == 1
        assert samples["quantserve_scrape_replicas_expected", *name] == said["replicas"]
        assert samples["quantserve_scrape_replicas_answered", *name] == said["replicas"]
        assert samples["quantserve_queued_requests", *name] == 0
