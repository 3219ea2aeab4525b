"""What engines of this runtime answer, beside the contract that all runtimes keep to."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.recipes import RECIPES
from serving.runtimes.openvino.execution import EXECUTIONS, why_not_here
from serving.seams import EncoderEngine, Head, Logits, PerToken, Pooled
from tests.matrix import pairs
from tests.unit.runtimes.closeness import mean_cosine
from tests.unit.runtimes.openvino.conftest import Artifact
from tests.unit.runtimes.tiny_models import open_prepared, padded_batch

ROOT = Path(__file__).parents[4]

POSSIBLE = [recipe for recipe in EXECUTIONS if why_not_here(recipe) is None]

HEADS: dict[str, Head] = {
    "mean": Pooled(pooling="mean"),
    "cls": Pooled(pooling="cls"),
    "last": Pooled(pooling="last"),
    "max": Pooled(pooling="max"),
    "token": PerToken(),
    "logits": Logits(),
}


def opened(artifact: Artifact, recipe: str, head: Head) -> EncoderEngine:
    return open_prepared("openvino", recipe, head, artifact(recipe, head))


@pytest.mark.parametrize(("recipe", "name"), pairs(POSSIBLE, HEADS))
def test_heads_and_recipes(artifact: Artifact, recipe: str, name: str) -> None:
    head, batch = HEADS[name], padded_batch([12, 5, 30])
    rows = opened(artifact, recipe, head).forward(batch)
    wanted = opened(artifact, "fp32", head).forward(batch)
    assert rows.dtype == np.float32
    assert rows.shape == wanted.shape
    if isinstance(head, PerToken):
        padding = batch["attention_mask"] == 0
        assert not rows[padding].any(), "padding is zero"
        rows, wanted = rows[~padding], wanted[~padding]
    expectation = RECIPES[recipe].encoder
    assert expectation is not None
    assert mean_cosine(rows, wanted) >= expectation.cosine


@pytest.mark.parametrize("recipe", POSSIBLE)
def test_short_and_long_batches_in_turn(artifact: Artifact, recipe: str) -> None:
    engine = opened(artifact, recipe, HEADS["mean"])
    short, long = padded_batch([1]), padded_batch([64] * 32)
    before = engine.forward(short)
    assert engine.forward(long).shape == (32, 128)
    np.testing.assert_array_equal(engine.forward(short), before)


@pytest.mark.parametrize("name", HEADS)
def test_rows_outlive_the_next_call(artifact: Artifact, name: str) -> None:
    engine = opened(artifact, "fp32", HEADS[name])
    rows = engine.forward(padded_batch([9, 4]))
    kept = rows.copy()
    engine.forward(padded_batch([9, 4], seed=1))
    np.testing.assert_array_equal(rows, kept)


def test_another_thread_gets_the_same(artifact: Artifact) -> None:
    engine, batch = opened(artifact, "fp32", HEADS["mean"]), padded_batch([20, 4])
    seen: list[NDArray[np.float32]] = []
    other = threading.Thread(target=lambda: seen.append(engine.forward(batch)))
    other.start()
    other.join()
    np.testing.assert_array_equal(seen[0], engine.forward(batch))


MANY_SHAPES = """
import sys
from pathlib import Path
from serving.machine.process_memory import private_bytes
from serving.seams import Pooled
from tests.unit.runtimes.tiny_models import open_prepared, padded_batch
engine = open_prepared("openvino", "int8-static", Pooled(), Path(sys.argv[1]), threads=1)
shapes = [(rows, tokens) for rows in range(1, 17) for tokens in range(8, 65, 4)]
grown = []
for part in (shapes[:80], shapes[80:]):
    before = private_bytes()
    for rows, tokens in part:
        engine.forward(padded_batch([tokens] * rows))
    grown.append(private_bytes() - before)
print(*grown)
"""


def test_new_shapes_do_not_add_up(artifact: Artifact) -> None:
    command = [sys.executable, "-c", MANY_SHAPES, str(artifact("int8-static", HEADS["mean"]))]
    result = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    first, second = map(int, result.stdout.split())
    # Twice as many shapes, and larger ones; without a bound they take more than the first.
    assert second < first, f"{first >> 20} and {second >> 20} MiB"
