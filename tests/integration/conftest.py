"""The demo service, once for all tests that only ask it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from serving.demo import DEMO_CONFIG
from tests.integration.running_service import RunningService, running_service

NUM_EXAMPLES = 8


@pytest.fixture(scope="package")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """The demo's models in all their variants, with few labelled examples."""
    folder = tmp_path_factory.mktemp("demo")
    with running_service(with_few_examples(folder), folder / "service.log") as service:
        assert service.not_ready() == []
        yield service


def with_few_examples(folder: Path) -> Path:
    """The demo's configuration, with so little labelled data that an evaluation takes seconds."""
    document = yaml.safe_load(DEMO_CONFIG.read_text())
    for model in document["models"]:
        if dataset := model.get("quality", {}).get("dataset"):
            examples = Path(dataset).expanduser().read_text().splitlines()
            few = folder / Path(dataset).name
            few.write_text("\n".join(examples[:NUM_EXAMPLES]))
            model["quality"]["dataset"] = str(few)
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    return config


@pytest.fixture(scope="package")
def client(demo: RunningService) -> Iterator[httpx.Client]:
    """HTTP client of the demo service."""
    with httpx.Client(base_url=demo.url, timeout=60) as http:
        yield http
