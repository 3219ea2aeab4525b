"""Locust with the shipped locustfile: every request is answered, in the variants asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.running_service import RunningService

LOCUSTFILE = Path(__file__).parents[2] / "loadtests" / "locustfile.py"
RUN_S = 120


@pytest.mark.parametrize(
    ("model", "operation", "variants"),
    [
        ("minilm", "embeddings", ("fp32", "int8-dynamic")),
        ("smollm2", "completions", ("q4_1",)),
        ("smollm2", "chat", ("q4_1",)),
        ("sentiment", "classify", ("int8-dynamic",)),
    ],
)
def test_every_request_is_answered(
    service: RunningService, model: str, operation: str, variants: tuple[str, ...]
) -> None:
    asked = {"MODEL": model, "OPERATION": operation, "VARIANTS": ",".join(variants)}
    command = [
        *(sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE), "--host", service.url),
        *("--headless", "--users", "2", "--spawn-rate", "2", "--run-time", "4s"),
        *("--stop-timeout", "60", "--json", "--loglevel", "WARNING"),
    ]
    done = subprocess.run(
        command,
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert set(found) == {f"{model}:{variant}" for variant in variants}
    for entry in found.values():
        assert entry["num_requests"] > 0
        assert entry["num_failures"] == 0
