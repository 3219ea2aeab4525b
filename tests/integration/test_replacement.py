"""A replica that dies is replaced, and the gateway's callers do not notice."""

from __future__ import annotations

import concurrent.futures

import httpx

from tests.integration.running_service import RunningService, wait_until_in_flight
from tests.integration.test_answers import ask

MANY_TEXTS = ["A sentence that is long enough to keep one core busy for a moment. " * 10] * 128


def test_killed_replica(demo: RunningService, client: httpx.Client) -> None:
    (victim,) = demo.replica_processes("sentiment", "fp32")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        in_flight = pool.submit(
            ask, client, "suffix", "sentiment", "fp32", "v1/classify", input=MANY_TEXTS
        )
        wait_until_in_flight(demo, "sentiment", "fp32")
        assert not in_flight.done()
        victim.kill()
        # While it is dead, the others are seen and answer.
        assert 'model="minilm"' in httpx.get(f"{demo.url}/metrics", timeout=10).text
        entries = client.get("/v1/models", timeout=10).json()["data"]
        assert sum(entry["quantserve"]["ready"] for entry in entries) >= len(entries) - 1
        other = ask(client, "direct", "sentiment", "bf16", "v1/classify", input="fine")
        assert other.status_code == 200
        answer = in_flight.result()
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["data"]) == len(MANY_TEXTS)

    again = ask(client, "direct", "sentiment", "fp32", "v1/classify", input="fine")
    assert again.status_code == 200, again.text
    (replacement,) = demo.replica_processes("sentiment", "fp32")
    assert replacement.pid != victim.pid
