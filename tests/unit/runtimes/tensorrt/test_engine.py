"""Engines on a GPU, beside torch on the CPU. Never run yet: no machine of ours had TensorRT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serving.errors import ConfigError
from serving.machine.device import why_no_cuda
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.runtimes.tensorrt.engine_files import ENGINE, FACTS, EngineFacts
from serving.seams import Checkpoint, EncoderEngine, Head, OpenRequest, PrepareRequest
from tests.unit.runtimes.closeness import mean_cosine
from tests.unit.runtimes.tiny_models import (
    HEADS,
    one_row,
    open_prepared,
    padded_batch,
    prepare,
    save_model,
)

pytest.importorskip("tensorrt", reason="TensorRT is not installed: pip install tensorrt")
if (reason := why_no_cuda()) is not None:
    pytest.skip(reason, allow_module_level=True)


def build(checkpoint: Checkpoint, recipe: str, head: Head, folder: Path) -> None:
    folder.mkdir(parents=True)
    options, example = RECIPES[recipe].options(), padded_batch([9, 4, 30])
    RUNTIMES["tensorrt"].prepare(
        PrepareRequest(checkpoint, recipe, options, "encoder", head, "cuda", 1, example, (), folder)
    )


def opened(recipe: str, head: Head, folder: Path) -> EncoderEngine:
    options = RECIPES[recipe].options()
    return RUNTIMES["tensorrt"].open_encoder(OpenRequest(folder, recipe, options, head, "cuda", 1))


@pytest.mark.parametrize("task", HEADS)
@pytest.mark.parametrize("recipe", ["fp32", "f16"])
def test_rows_are_torchs_in_any_company(tmp_path: Path, recipe: str, task: str) -> None:
    head, checkpoint = HEADS[task], save_model(tmp_path / "model", task)
    expectation = RECIPES[recipe].encoder
    assert expectation is not None
    prepare("torch", "fp32", checkpoint, head, tmp_path / "torch")
    build(checkpoint, recipe, head, tmp_path / "engine")
    engine, batch = opened(recipe, head, tmp_path / "engine"), padded_batch([40, 3, 17, 1, 64])
    rows = engine.forward(batch)
    wanted = open_prepared("torch", "fp32", head, tmp_path / "torch").forward(batch)
    assert mean_cosine(rows, wanted) >= expectation.cosine
    alone = np.concatenate([engine.forward(one_row(batch, index)) for index in range(5)])
    change = np.linalg.norm(rows - alone, axis=1) / np.linalg.norm(alone, axis=1)
    assert change.max() < expectation.batch_change


def test_what_is_more_than_a_pass_runs_in_several(tmp_path: Path) -> None:
    head, folder = HEADS["embeddings"], tmp_path / "engine"
    build(save_model(tmp_path / "model", "embeddings"), "fp32", head, folder)
    facts = EngineFacts.model_validate_json((folder / FACTS).read_bytes())
    engine, batch = opened("fp32", head, folder), padded_batch([8] * (facts.max_rows + 3))
    rows = engine.forward(batch)
    # Of other sizes TensorRT may sum in another order.
    np.testing.assert_allclose(rows[-1:], engine.forward(one_row(batch, -1)), atol=1e-4)
    with pytest.raises(ValueError, match="65 tokens; the engine has 64 at most"):
        engine.forward(padded_batch([65]))


def test_another_gpu_or_a_damaged_file_is_refused(tmp_path: Path) -> None:
    head, folder = HEADS["embeddings"], tmp_path / "engine"
    build(save_model(tmp_path / "model", "embeddings"), "fp32", head, folder)
    facts = EngineFacts.model_validate_json((folder / FACTS).read_bytes())
    other = facts.model_copy(update={"gpu": "another"})
    (folder / FACTS).write_text(other.model_dump_json())
    with pytest.raises(ConfigError, match="it was built on another"):
        opened("fp32", head, folder)
    (folder / FACTS).write_text(facts.model_dump_json())
    (folder / ENGINE).write_bytes(b"")
    with pytest.raises(ConfigError, match="it has 0 bytes"):
        opened("fp32", head, folder)
