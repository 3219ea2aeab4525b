"""GuideLLM: a run of a few requests, with every answer counted and none an error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NUM_REQUESTS = 4
OUTPUT_TOKENS = 8
RUN_S = 180


def benchmark(url: str, folder: Path, route: str, model: str) -> dict[str, Any]:
    """Run it on a few prompts and return what it reports of its one benchmark."""
    data = folder / "prompts.jsonl"
    line = {"prompt": "Once upon a time there was a", "output_tokens_count": OUTPUT_TOKENS}
    data.write_text("".join(json.dumps(line) + "\n" for _ in range(NUM_REQUESTS)))
    report = folder / "report.json"
    backend = {
        "kind": "openai_http",
        "target": url,
        "model": model,
        "request_format": route,
    }
    command = [
        *(sys.executable, "-m", "guidellm", "run", "--disable-console"),
        *("--backend", json.dumps(backend)),
        *("--profile", "kind=concurrent,streams=2"),
        *("--constraint", f"kind=max_requests,count={NUM_REQUESTS}"),
        *("--data", f"kind=json_file,path={data}"),
        *("--output", f"kind=json,path={report}"),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=RUN_S, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [found] = json.loads(report.read_text())["benchmarks"]
    totals = found["metrics"]["request_totals"]
    assert totals == {
        "successful": NUM_REQUESTS,
        "errored": 0,
        "incomplete": 0,
        "total": NUM_REQUESTS,
    }
    return dict(found)


@pytest.mark.parametrize("route", ["/v1/completions", "/v1/chat/completions"])
def test_generation(url: str, tmp_path: Path, route: str) -> None:
    """Streamed, with the token counts in every chunk, and as many tokens as were asked for."""
    found = benchmark(url, tmp_path, route, "smollm2:q4_1")
    for request in found["requests"]["successful"]:
        assert request["output"]
        assert request["output_metrics"]["text_tokens"] == OUTPUT_TOKENS


def test_embeddings(url: str, tmp_path: Path) -> None:
    benchmark(url, tmp_path, "/v1/embeddings", "minilm:fp32")
