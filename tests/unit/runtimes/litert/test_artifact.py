"""What an artifact of this runtime gives to whoever opens it."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from serving import heads
from serving.errors import ConfigError, MayPass
from serving.runtimes.litert.graph_files import FACTS, GRAPH
from serving.runtimes.litert.runtime import why_not
from serving.seams import Checkpoint, Combination, Head, Logits, PerToken, Pooled
from tests.unit.runtimes.native_threads import thread_ids
from tests.unit.runtimes.tiny_models import open_prepared, padded_batch, prepare, save_model

RECIPES = ("fp32", "f16", "int8-dynamic", "int8-static")

HEADS: dict[str, Head] = {
    "mean": Pooled(pooling="mean"),
    "last": Pooled(pooling="last"),
    "max": Pooled(pooling="max"),
    "cls": Pooled(pooling="cls"),
    "token": PerToken(),
    "logits": Logits(),
}

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts of every recipe, by ``{recipe}-hidden`` and ``{recipe}-logits``."""
    root = tmp_path_factory.mktemp("artifacts")
    for task, head in (("embeddings", HEADS["mean"]), ("classification", HEADS["logits"])):
        checkpoint = save_model(root / task, task)
        for recipe in RECIPES:
            prepare("litert", recipe, checkpoint, head, root / place(recipe, head))
    return root


def place(recipe: str, head: Head) -> str:
    return f"{recipe}-{'logits' if isinstance(head, Logits) else 'hidden'}"


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_head_in_every_recipe(artifacts: Path, recipe: str, name: str) -> None:
    head, batch = HEADS[name], padded_batch([12, 5, 30])
    reference = open_prepared("litert", "fp32", head, artifacts / place("fp32", head))
    engine = open_prepared("litert", recipe, head, artifacts / place(recipe, head))
    rows, wanted = engine.forward(batch), reference.forward(batch)
    assert rows.dtype == np.float32
    assert rows.shape == wanted.shape
    if isinstance(head, PerToken):
        padding = batch["attention_mask"] == 0
        assert not rows[padding].any(), "padding is zero"
        rows, wanted = rows[~padding], wanted[~padding]
    error = np.linalg.norm(rows - wanted, axis=-1) / np.linalg.norm(wanted, axis=-1)
    # 8 bits are 255 steps between the ends of a token's numbers, or of all where the scale is
    # fixed; int8-static rounds what comes out of layers, too. Worst seen: 0.03, of logits 0.2.
    assert error.max() < (0.3 if name == "logits" else 0.06)


@pytest.mark.parametrize("recipe", ["int8-dynamic", "int8-static"])
def test_the_strength_of_smoothing_is_the_options(tmp_path: Path, recipe: str) -> None:
    head, batch = HEADS["mean"], padded_batch([12, 5, 30])
    checkpoint = save_model(tmp_path / "model", "embeddings")
    found = []
    for made, strength in enumerate((0.4, 0.6)):
        folder = tmp_path / str(made)
        prepare("litert", recipe, checkpoint, head, folder, smooth=strength)
        found.append(open_prepared("litert", recipe, head, folder, smooth=strength).forward(batch))
    prepare("litert", "fp32", checkpoint, head, tmp_path / "fp32")
    wanted = open_prepared("litert", "fp32", head, tmp_path / "fp32").forward(batch)
    assert not np.allclose(found[0], found[1], rtol=1e-4)
    for rows in found:
        error = np.linalg.norm(rows - wanted, axis=-1) / np.linalg.norm(wanted, axis=-1)
        assert error.max() < 0.06  # as above


@pytest.mark.parametrize("recipe", RECIPES)
def test_answers_do_not_depend_on_company_or_padding(artifacts: Path, recipe: str) -> None:
    head = HEADS["mean"]
    engine = open_prepared("litert", recipe, head, artifacts / place(recipe, head))
    batch = padded_batch([64, 3, 17, 1, 40])
    together = engine.forward(batch)
    for index, length in enumerate([64, 3, 17, 1, 40]):
        alone = engine.forward({n: a[index : index + 1, :length] for n, a in batch.items()})[0]
        # Each row runs by itself, at its own length: the same bits.
        np.testing.assert_array_equal(together[index], alone)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_long_batch_follows_a_short_one(artifacts: Path, recipe: str) -> None:
    head = HEADS["logits"]
    engine = open_prepared("litert", recipe, head, artifacts / place(recipe, head))
    short, long = padded_batch([1]), padded_batch([64] * 32)
    before = engine.forward(short)
    assert engine.forward(long).shape == (32, 5)
    np.testing.assert_array_equal(engine.forward(short), before)


@pytest.mark.parametrize("file", [GRAPH, FACTS])
def test_a_file_that_was_cut_short_is_refused(artifacts: Path, tmp_path: Path, file: str) -> None:
    for name in (GRAPH, FACTS):
        content = (artifacts / "int8-dynamic-hidden" / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2] if name == file else content)
    with pytest.raises(ConfigError, match=re.escape(file)):
        open_prepared("litert", "int8-dynamic", HEADS["mean"], tmp_path)


def test_a_damaged_graph_is_refused(artifacts: Path, tmp_path: Path) -> None:
    for name in (GRAPH, FACTS):
        (tmp_path / name).write_bytes((artifacts / "int8-dynamic-hidden" / name).read_bytes())
    with (tmp_path / GRAPH).open("r+b") as graph:
        graph.write(bytes(64))
    with pytest.raises(MayPass, match=r"model\.tflite: LiteRT cannot open it"):
        open_prepared("litert", "int8-dynamic", HEADS["mean"], tmp_path)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_session_has_the_threads_that_it_is_given(artifacts: Path, threads: int) -> None:
    before = thread_ids()
    engine = open_prepared("litert", "fp32", HEADS["mean"], artifacts / "fp32-hidden", threads)
    # The thread that calls ``forward`` is one of them.
    assert len(thread_ids() - before) == threads - 1
    rows = engine.forward(padded_batch([20, 4]))
    seen: list[np.ndarray] = []
    other = threading.Thread(target=lambda: seen.append(engine.forward(padded_batch([20, 4]))))
    other.start()
    other.join()
    np.testing.assert_array_equal(seen[0], rows)


def test_only_what_runs_is_imported(artifacts: Path) -> None:
    code = f"""
import sys
from pathlib import Path
import numpy as np
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.seams import OpenRequest, Pooled, SizeRequest, WeightShape
runtime = RUNTIMES["litert"]
shape = WeightShape("a", (64, 64), False)
options = RECIPES["fp32"].options()
assert runtime.estimate(SizeRequest("fp32", options, "encoder", "cpu", [shape])).weights_bytes
assert not [name for name in sys.modules if name.startswith("ai_edge_litert")]
folder = Path({str(artifacts / "fp32-hidden")!r})
engine = runtime.open_encoder(OpenRequest(folder, "fp32", options, Pooled(), "cpu", 1))
engine.forward({{"input_ids": np.ones((1, 4), int), "attention_mask": np.ones((1, 4), int)}})
heavy = {{"torch", "transformers", "flatbuffers", "scipy", "pandas", "sympy", "ray"}}
sys.exit(", ".join(sorted(heavy & set(sys.modules))) or None)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_files_are_those_that_are_opened(artifacts: Path) -> None:
    files = {path.name for path in (artifacts / "int8-static-logits").iterdir()}
    assert files == {GRAPH, FACTS}


def test_other_recipes_and_kinds_are_refused() -> None:
    assert why_not(Combination("fp32", "encoder", "cpu", "safetensors")) is None
    reason = why_not(Combination("int4", "encoder", "cpu", "safetensors"))
    assert reason == ("litert has no recipe int4; it has fp32, f16, int8-dynamic, int8-static")
    assert why_not(Combination("fp32", "generator", "cpu", "safetensors"))


def test_a_checkpoint_without_the_heads_weights_is_refused(tmp_path: Path) -> None:
    checkpoint: Checkpoint = save_model(tmp_path / "model", "embeddings")
    with pytest.raises(ConfigError, match=r"classifier\.bias"):
        prepare("litert", "fp32", checkpoint, Logits(), tmp_path / "artifact")


def test_pooling_is_that_of_the_heads(artifacts: Path) -> None:
    batch = padded_batch([9, 4])
    tokens = open_prepared("litert", "fp32", PerToken(), artifacts / "fp32-hidden")
    mean = open_prepared("litert", "fp32", Pooled(), artifacts / "fp32-hidden")
    pooled = heads.pool(Pooled(), tokens.forward(batch), batch["attention_mask"])
    np.testing.assert_allclose(mean.forward(batch), pooled, rtol=1e-6)
