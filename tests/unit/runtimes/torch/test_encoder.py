"""What encoders on torch promise beyond the contract of all runtimes."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from serving.seams import PerToken, Pooled
from tests.unit.runtimes.tiny_models import (
    HEADS,
    TORCH_ENCODERS,
    open_prepared,
    padded_batch,
    prepare,
    save_model,
)

ROOT = Path(__file__).parents[4]

OPEN_AND_RUN = """
import sys
from pathlib import Path
import numpy as np
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.seams import OpenRequest, Pooled
root, *recipes = sys.argv[1:]
ones = np.ones((1, 3), np.int64)
for recipe in recipes:
    options = RECIPES[recipe].options()
    request = OpenRequest(Path(root, recipe), recipe, options, Pooled(), "cpu", 1)
    engine = RUNTIMES["torch"].open_encoder(request)
    engine.forward({"input_ids": ones, "attention_mask": ones})
found = {"torchao", "scipy", "sklearn"} & set(sys.modules)
sys.exit(f"imported {found}" if found else 0)
"""


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An artifact of each recipe, of a tiny embedding model."""
    root = tmp_path_factory.mktemp("artifacts")
    checkpoint = save_model(root / "model", "embeddings")
    for recipe in TORCH_ENCODERS:
        prepare("torch", recipe, checkpoint, HEADS["embeddings"], root / recipe)
    return {recipe: root / recipe for recipe in TORCH_ENCODERS}


def test_the_thread_that_calls_forward_gets_the_threads(artifacts: dict[str, Path]) -> None:
    seen: list[int] = []
    before = torch.get_num_threads()
    engine = open_prepared("torch", "fp32", HEADS["embeddings"], artifacts["fp32"], threads=1)

    def work() -> None:
        torch.set_num_threads(2)
        engine.forward(padded_batch([4]))
        seen.append(torch.get_num_threads())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    torch.set_num_threads(before)
    assert seen == [1]


@pytest.mark.parametrize("recipe", TORCH_ENCODERS)
def test_token_types_reach_the_model(artifacts: dict[str, Path], recipe: str) -> None:
    engine = open_prepared("torch", recipe, HEADS["embeddings"], artifacts[recipe])
    batch = padded_batch([12, 12])
    first = {**batch, "token_type_ids": np.zeros((2, 12), np.int64)}
    second = {**batch, "token_type_ids": np.ones((2, 12), np.int64)}
    np.testing.assert_array_equal(engine.forward(first), engine.forward(batch))
    assert not np.allclose(engine.forward(second), engine.forward(batch), atol=0.01)


def test_the_head_decides_what_a_row_is(artifacts: dict[str, Path]) -> None:
    batch = padded_batch([12, 5])
    tokens = open_prepared("torch", "fp32", PerToken(), artifacts["fp32"]).forward(batch)
    assert tokens.shape == (2, 12, 128)
    assert not tokens[1, 5:].any()
    mean = open_prepared("torch", "fp32", Pooled(), artifacts["fp32"]).forward(batch)
    np.testing.assert_allclose(tokens.sum(1) / [[12], [5]], mean, rtol=0, atol=1e-6)


def test_opening_imports_nothing_that_it_does_not_need(artifacts: dict[str, Path]) -> None:
    """Of no recipe: all are opened in one process."""
    command = [sys.executable, "-c", OPEN_AND_RUN, str(artifacts["fp32"].parent), *artifacts]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr[-2000:]
