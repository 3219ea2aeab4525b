"""AIPerf: a run of a few requests, with every answer counted and none an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NUM_REQUESTS = 4
OUTPUT_TOKENS = 8
RUN_S = 180


def profile(url: str, folder: Path, endpoint: str, model: str, *options: str) -> dict[str, Any]:
    """Run it on a few prompts and return what it reports."""
    data = folder / "prompts.jsonl"
    line = json.dumps({"text": "Once upon a time there was a"})
    data.write_text(f"{line}\n" * NUM_REQUESTS)
    command = [
        *(sys.executable, "-m", "aiperf", "profile"),
        *("--model", model, "--url", url, "--endpoint-type", endpoint),
        *("--input-file", str(data), "--custom-dataset-type", "single_turn"),
        *("--request-count", str(NUM_REQUESTS), "--concurrency", "2"),
        *("--use-server-token-count", "--output-artifact-dir", str(folder)),
        *("--tokenizer", os.environ["QUANTSERVE_TOKENIZER"], "--ui", "none"),
        *options,
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=RUN_S, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((folder / "profile_export_aiperf.json").read_text())
    assert found["request_count"]["avg"] == NUM_REQUESTS
    assert found["error_summary"] == []
    assert found["is_complete"]
    return dict(found)


@pytest.mark.parametrize(
    ("endpoint", "options"),
    [("completions", []), ("chat", ["--per-chunk-usage"])],
)
def test_generation(url: str, tmp_path: Path, endpoint: str, options: list[str]) -> None:
    """Streamed, and as many tokens as were asked for."""
    length = ("--extra-inputs", f"max_tokens:{OUTPUT_TOKENS}", "--extra-inputs", "ignore_eos:true")
    found = profile(url, tmp_path, endpoint, "smollm2:q4_1", "--streaming", *length, *options)
    tokens = found["output_sequence_length"]
    assert (tokens["min"], tokens["max"]) == (OUTPUT_TOKENS, OUTPUT_TOKENS)


def test_our_metrics_are_scraped(url: str, tmp_path: Path) -> None:
    """AIPerf looks for Prometheus' text at /metrics of itself."""
    profile(url, tmp_path, "embeddings", "minilm:fp32")
    scraped = json.loads((tmp_path / "server_metrics_export.json").read_text())
    assert scraped["summary"]["endpoints_successful"] == [f"{url}/metrics"]
    assert any(name.startswith("quantserve_requests") for name in scraped["metrics"])
