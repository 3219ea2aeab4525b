"""The demo as the tests start it: with a key, the shipped reports and few labelled examples."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from serving.demo import DEMO_CONFIG
from tests.integration.running_service import RunningService, running_service

REPORTS = Path(__file__).parents[2] / "docs" / "reports"
KEY = "a-key-of-the-demo"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
NUM_EXAMPLES = 8
"""So few that an evaluation takes seconds."""


@contextlib.contextmanager
def demo_service(folder: Path) -> Iterator[RunningService]:
    """Start the demo's models in all their variants, and stop them in the end.

    Args:
        folder: Where its configuration, its log and its evidence go.
    """
    environment = {
        "QUANTSERVE_SERVER__API_KEY": KEY,
        "QUANTSERVE_REPORTS__FOLDER": str(REPORTS),
    }
    config = _with_few_examples(folder)
    with running_service(config, folder / "service.log", environment) as service:
        assert service.not_ready() == []
        yield service


def with_comparisons(document: dict[str, Any]) -> dict[str, Any]:
    """Have every live request of ``sentiment`` compared, and its worst samples kept."""
    for model in document["models"]:
        if model["name"] == "sentiment":
            shadow = {"rate": 1, "max_per_second": 10}
            model["quality"] = {**model.get("quality", {}), "shadow": shadow, "keep_samples": 5}
    return document


def _with_few_examples(folder: Path) -> Path:
    document = with_comparisons(yaml.safe_load(DEMO_CONFIG.read_text()))
    for model in document["models"]:
        if dataset := model.get("quality", {}).get("dataset"):
            examples = Path(dataset).expanduser().read_text().splitlines()
            few = folder / Path(dataset).name
            few.write_text("\n".join(examples[:NUM_EXAMPLES]))
            model["quality"]["dataset"] = str(few)
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    return config
