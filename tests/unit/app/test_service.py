"""A start that fails; all else of the service needs real Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.app import deploying
from serving.app.plan import Plan
from serving.app.preloading import start_fork_servers
from serving.app.service import Service
from serving.config import Config, ModelConfig, ServerConfig, VariantConfig
from serving.errors import StartError
from tests.integration.running_service import free_port


def test_what_keeps_ray_from_starting_is_one_message(tmp_path: Path, monkeypatch) -> None:
    def fail(**settings: object) -> None:
        raise TimeoutError("The current node timed out during startup.")

    monkeypatch.setattr("ray.init", fail)
    variant = VariantConfig(name="fp32")
    model = ModelConfig(name="m", task="embeddings", source="x", variants=(variant,))
    config = Config(models=(model,), server=ServerConfig(port=free_port()))
    stages: list[str] = []
    plan = Plan((), 0, 0)
    service = Service(config, plan, tmp_path, start_fork_servers(plan, tmp_path))
    with pytest.raises(StartError, match=r"Ray did not start: The current node timed out .* logs"):
        service.start(stages.append)
    service.stop()
    assert stages == ["starting Ray"]


def test_a_gateway_that_cannot_start_is_one_message(monkeypatch) -> None:
    failed = {"status": "DEPLOY_FAILED", "message": "Traceback:\n  File x\nOSError: no such disk\n"}
    monkeypatch.setattr(deploying, "serve_applications", lambda: {"gateway": failed})
    with pytest.raises(StartError, match=r"^the gateway cannot start: OSError: no such disk$"):
        deploying._wait_until_running("gateway")
