"""What is known of quality outlives the quality process and the service."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from serving.demo import DEMO_CONFIG
from serving.settings import load_config
from tests.integration.running_service import RunningService, running_service

PATIENCE_S = 120

CONFIG = """
models:
  - name: sentiment
    task: classification
    source: {source}
    variants: [fp32, bf16]
    quality:
      shadow: {{rate: 1, max_per_second: 1000}}
      dataset: {dataset}
"""

TEXTS = [f"A film about the number {number}." for number in range(12)]
EXAMPLES = """\
{"input": "A warm and funny film.", "label": "positive"}
{"input": "Dull from the first minute to the last.", "label": "negative"}
"""


def test_neither_a_kill_nor_a_restart_has_anything_asked_again(tmp_path: Path) -> None:
    (source,) = [m.source for m in load_config(DEMO_CONFIG).models if m.name == "sentiment"]
    dataset, config = tmp_path / "labelled.jsonl", tmp_path / "config.yaml"
    dataset.write_text(EXAMPLES)
    config.write_text(CONFIG.format(source=source, dataset=dataset, evidence=tmp_path / "evidence"))
    with running_service(config, tmp_path / "first.log") as service:
        service.wait_until_probed()
        assert compared(service, "probes") > 0
        ask_live(service)
        evaluate(service)
        first = quality(service)
        assert first["not_kept"] == ""
        (monitor,) = [p for p in service.descendants() if "ServeReplica:quality" in title(p)]
        monitor.kill()
        wait_for(lambda: known_again(service, first))
        assert compared(service, "probes") == 0

    with running_service(config, tmp_path / "second.log") as service:
        wait_for(lambda: known_again(service, first))
        assert compared(service, "probes") == 0
        history = quality(service, since="0")["history"]
        now = next(one for one in first["variants"] if one["variant"] == "bf16")
        assert history[-1]["verdict"] == now["verdict"]
        assert history[-1]["artifact"] == now["artifact"]
        assert len({(one["variant"], one["verdict"]) for one in history}) == len(history)


def ask_live(service: RunningService) -> None:
    """Send requests, and wait until nothing of them is left to compare."""
    with httpx.Client(base_url=service.url, timeout=30) as http:
        for text in TEXTS:
            http.post("/sentiment/bf16/v1/classify", json={"input": text}).raise_for_status()
    wait_for(lambda: compared(service, "live") + dropped(service) >= len(TEXTS))
    assert compared(service, "live") > 0


def evaluate(service: RunningService) -> None:
    """Run the labelled data."""
    body = {"model": "sentiment"}
    httpx.post(f"{service.url}/v1/quality/evaluate", json=body, timeout=30).raise_for_status()
    wait_for(lambda: quality(service)["evaluation"]["state"] == "done")


def quality(service: RunningService, **query: str) -> dict[str, Any]:
    """What is known of the one model."""
    answer = httpx.get(f"{service.url}/v1/quality", params=query, timeout=10)
    (entry,) = answer.raise_for_status().json()["data"]
    return dict(entry)


def known_again(service: RunningService, expected: dict[str, Any]) -> bool:
    """Whether the service knows what it knew."""
    with contextlib.suppress(httpx.HTTPError):
        return bool(quality(service)["variants"] == expected["variants"])
    return False


def compared(service: RunningService, origin: str) -> float:
    """Answers that the present quality process has compared."""
    return total(service, "quality_samples_total", f'origin="{origin}"')


def dropped(service: RunningService) -> float:
    """Answers that nobody will compare."""
    return total(service, "quality_dropped_total", "")


def total(service: RunningService, name: str, label: str) -> float:
    """The sum of a counter's series that have a label."""
    page = httpx.get(f"{service.url}/metrics", timeout=10).text
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in page.splitlines()
        if line.startswith(f"quantserve_{name}{{") and label in line
    )


def title(process: Any) -> str:
    with contextlib.suppress(Exception):
        return " ".join(process.cmdline())
    return ""


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)
