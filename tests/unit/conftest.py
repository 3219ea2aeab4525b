"""What several folders of unit tests need: tiny real checkpoints, and a clean environment."""

from __future__ import annotations

import gc
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from safetensors.numpy import save_file

from serving.settings import ENV_PREFIX
from tests.unit.paper import Paper, installed

# The machines that run this are shared and small: how long one example takes says nothing.
settings.register_profile("unit", deadline=None, max_examples=100)
settings.load_profile("unit")

TENSORS = {"embeddings.word_embeddings.weight": (10, 4), "layer.weight": (4, 4), "layer.bias": (4,)}
"""Names and shapes of the tensors of ``checkpoint_folder``: 60 numbers."""

ALL_CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()

WriteConfig = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
def garbage() -> None:
    """Have the garbage collector look through what was made since the module began, and no more.

    We collect after every conversion. Among all that some hundred modules have imported and made,
    more than half of the time of the whole suite went there.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def all_cores() -> Iterator[None]:
    """Let the next test, and the processes that it starts, run on all cores.

    An engine may bind the thread that calls it, as TVM's pool does: for the rest of the suite, so
    that two processes of tests shared one core.
    """
    yield
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, ALL_CORES)


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """No setting of the caller's shell reaches a test, and none of a test the next."""
    before = dict(os.environ)
    for variable in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        del os.environ[variable]
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """What a library silences in a test is silent in no other.

    OpenVINO leaves the root at ERROR where a model cannot be traced.
    """
    level, disabled = logging.root.level, logging.root.manager.disable
    yield
    logging.root.setLevel(level)
    logging.disable(disabled)


@pytest.fixture
def checkpoint_folder(tmp_path: Path) -> Path:
    """A folder with a config and safetensors weights, and nothing else."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 4}))
    tensors = {name: np.zeros(shape, np.float32) for name, shape in TENSORS.items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture
def write_config(tmp_path: Path, checkpoint_folder: Path) -> WriteConfig:
    """Writes a configuration of one model on ``checkpoint_folder``."""

    def write(variants: str = "[fp32, bf16]", task: str = "embeddings", more: str = "") -> Path:
        file = tmp_path / "config.yaml"
        file.write_text(
            f"models:\n- {{name: tiny, task: {task}, source: {checkpoint_folder}, "
            f"variants: {variants}}}\n{more}"
        )
        return file

    return write


@pytest.fixture
def paper(
    tmp_path: Path, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Paper]:
    """Somebody else's package with a runtime, recipes and a task, and a checkpoint for it."""
    folder = tmp_path / "paper"
    folder.mkdir()
    with installed(folder, checkpoint_folder, monkeypatch) as paper:
        yield paper
