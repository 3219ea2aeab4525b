"""Each official client, in its environment, against the running service."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from serving.demo.prepare import demo_directory
from tests.integration.running_service import RunningService

WITHIN = Path(__file__).with_name("within")
RUN_S = 600

CLIENTS = (
    ("openai", "openai"),
    ("openai", "langchain"),
    ("frameworks", "openai"),  # the version before, which LiteLLM and LlamaIndex hold
    ("frameworks", "litellm"),
    ("frameworks", "llama_index"),
    ("frameworks", "tritonclient"),
    ("load", "guidellm"),
    ("load", "aiperf"),
)
"""An environment, and the file of tests that runs there."""


@pytest.mark.parametrize(("environment", "client"), CLIENTS)
def test_client(
    service: RunningService, interpreters: Mapping[str, Path], environment: str, client: str
) -> None:
    command = [
        *(str(interpreters[environment]), "-m", "pytest", "-c", str(WITHIN / "pytest.ini")),
        str(WITHIN / f"test_{client}.py"),
    ]
    given = {
        "QUANTSERVE_URL": service.url,
        "QUANTSERVE_TOKENIZER": str(demo_directory() / "smollm2"),
    }
    done = subprocess.run(
        command,
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    # 5 is pytest's status for "no tests", which is a failure, too.
    assert done.returncode == 0, done.stdout + done.stderr
    assert " skipped" not in done.stdout.splitlines()[-1], done.stdout
