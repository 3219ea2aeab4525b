"""Artifacts of tiny models, each prepared once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from serving.seams import Head, Logits
from tests.unit.runtimes.tiny_models import HEADS, prepare, save_model

Artifact = Callable[[str, Head], Path]


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Gives the folder of a recipe's artifact for a head; heads that pool share one."""
    root = tmp_path_factory.mktemp("openvino")
    checkpoints = {task: save_model(root / task, task) for task in HEADS}

    def made(recipe: str, head: Head) -> Path:
        task = "classification" if isinstance(head, Logits) else "embeddings"
        folder = root / f"{recipe}-{task}"
        if not folder.exists():
            prepare("openvino", recipe, checkpoints[task], HEADS[task], folder)
        return folder

    return made
