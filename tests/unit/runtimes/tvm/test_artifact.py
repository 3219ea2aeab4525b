"""What an artifact of this runtime gives to whoever opens it."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from serving import heads
from serving.errors import ConfigError, MayPass
from serving.machine.cores import core_numbers
from serving.runtimes.torch.pretrained import load_pretrained
from serving.runtimes.tvm import opening
from serving.runtimes.tvm.graph_files import FACTS, LIBRARY, WEIGHTS, LibraryFacts
from serving.runtimes.tvm.target import target_here
from serving.seams import Checkpoint, Head, Logits, PerToken, Pooled
from tests.unit.runtimes.native_threads import thread_ids
from tests.unit.runtimes.tiny_models import (
    one_row,
    open_prepared,
    padded_batch,
    prepare,
    save_model,
)

ROOT = Path(__file__).parents[4]

POOLINGS: dict[str, Head] = {
    "mean": Pooled(pooling="mean"),
    "last": Pooled(pooling="last"),
    "max": Pooled(pooling="max"),
    "cls": Pooled(pooling="cls"),
}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a tiny model's hidden states."""
    root = tmp_path_factory.mktemp("tvm")
    prepare("tvm", "fp32", save_model(root / "model", "embeddings"), Pooled(), root / "artifact")
    return root / "artifact"


def test_pooling_is_that_of_the_heads(artifact: Path) -> None:
    batch = padded_batch([12, 5, 30])
    tokens = open_prepared("tvm", "fp32", PerToken(), artifact).forward(batch)
    assert tokens.shape == (3, 30, 128)
    assert not tokens[batch["attention_mask"] == 0].any(), "padding is zero"
    for head in POOLINGS.values():
        rows = open_prepared("tvm", "fp32", head, artifact).forward(batch)
        wanted = heads.pool(head, tokens, batch["attention_mask"])
        np.testing.assert_allclose(rows, wanted, rtol=1e-6)


def test_f16_is_float32_with_rounded_weights(artifact: Path, tmp_path: Path) -> None:
    head, checkpoint = Pooled(), save_model(tmp_path / "model", "embeddings")
    if target_here()[1] == ():
        pytest.skip("on this CPU there is no f16")
    prepare("tvm", "f16", checkpoint, head, tmp_path / "f16")
    model: Any = load_pretrained(checkpoint, "AutoModel", torch.float32)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.copy_(parameter.half())
    model.save_pretrained(tmp_path / "rounded")
    prepare("torch", "fp32", Checkpoint(tmp_path / "rounded"), head, tmp_path / "torch")
    batch = padded_batch([12, 5, 30])
    rows = open_prepared("tvm", "f16", head, tmp_path / "f16").forward(batch)
    wanted = open_prepared("torch", "fp32", head, tmp_path / "torch").forward(batch)
    # float32 sums in another order, as for fp32.
    np.testing.assert_allclose(rows, wanted, atol=1e-5)
    assert not np.allclose(rows, open_prepared("tvm", "fp32", head, artifact).forward(batch), 1e-5)
    sizes = [(folder / WEIGHTS).stat().st_size for folder in (tmp_path / "f16", artifact)]
    assert sizes[0] < 0.52 * sizes[1]


@pytest.mark.parametrize("seed", range(3))
def test_answers_are_the_same_bits_in_any_company(artifact: Path, seed: int) -> None:
    engine = open_prepared("tvm", "fp32", Pooled(), artifact)
    batch = padded_batch([64, 3, 17, 1, 40, 8, 9], seed)
    together = engine.forward(batch)
    for index in range(7):
        np.testing.assert_array_equal(engine.forward(one_row(batch, index))[0], together[index])


def test_a_long_batch_follows_a_short_one(artifact: Path) -> None:
    engine = open_prepared("tvm", "fp32", Pooled(), artifact)
    short, long = padded_batch([1]), padded_batch([64] * 32)
    before = engine.forward(short)
    assert engine.forward(long).shape == (32, 128)
    np.testing.assert_array_equal(engine.forward(short), before)


@pytest.mark.parametrize(
    ("batch", "reason"),
    [
        ({"input_ids": np.array([[1, 1000]])}, "ids from 1 to 1000 for a table of 1000"),
        ({"input_ids": np.array([[1, -1]])}, "ids from -1 to 1 for a table of 1000"),
        ({"input_ids": np.ones((1, 65), int)}, "positions from 0 to 64 for a table of 64"),
        (
            {"input_ids": np.ones((1, 2), int), "token_type_ids": np.array([[0, 2]])},
            "types from 0 to 2 for a table of 2",
        ),
    ],
)
def test_what_has_no_place_in_its_table_is_refused(
    artifact: Path, batch: dict[str, np.ndarray], reason: str
) -> None:
    engine = open_prepared("tvm", "fp32", Pooled(), artifact)
    with pytest.raises(ValueError, match=reason):
        engine.forward({**batch, "attention_mask": np.ones_like(batch["input_ids"])})


@pytest.mark.parametrize("file", [LIBRARY, WEIGHTS, FACTS])
def test_a_file_that_was_cut_short_is_refused(artifact: Path, tmp_path: Path, file: str) -> None:
    copy(artifact, tmp_path)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(ConfigError, match=re.escape(file)):
        open_prepared("tvm", "fp32", Pooled(), tmp_path)


def test_a_library_that_is_none_is_refused(artifact: Path, tmp_path: Path) -> None:
    copy(artifact, tmp_path)
    (tmp_path / LIBRARY).write_bytes(bytes((artifact / LIBRARY).stat().st_size))
    with pytest.raises(MayPass, match=r"model\.so: TVM cannot open it"):
        open_prepared("tvm", "fp32", Pooled(), tmp_path)


def test_what_was_compiled_for_another_cpu_is_refused(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = LibraryFacts.model_validate_json((artifact / FACTS).read_bytes())
    if not facts.flags:
        pytest.skip("on this CPU it was compiled for any")
    monkeypatch.setattr(opening, "cpu_flags", lambda: frozenset(facts.flags) - {"fma"})
    with pytest.raises(ConfigError, match="compiled for a CPU with fma, which this one lacks"):
        open_prepared("tvm", "fp32", Pooled(), artifact)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_pool_has_the_threads_that_it_is_given(artifact: Path, threads: int) -> None:
    found: list[tuple[int, np.ndarray]] = []

    def open_and_run() -> None:
        # A pool belongs to the thread that calls.
        before = thread_ids()
        engine = open_prepared("tvm", "fp32", Pooled(), artifact, threads)
        rows = engine.forward(padded_batch([20, 4]))
        found.append((len(thread_ids() - before), rows))
        engine.use_cores(core_numbers()[:1])
        found.append((len(thread_ids() - before), engine.forward(padded_batch([20, 4]))))

    caller = threading.Thread(target=open_and_run)
    caller.start()
    caller.join()
    alone = open_prepared("tvm", "fp32", Pooled(), artifact).forward(padded_batch([20, 4]))
    for num_more, rows in found:
        assert num_more == threads - 1, "the thread that calls is one of them"
        np.testing.assert_array_equal(rows, alone)


def test_only_what_runs_is_imported(artifact: Path) -> None:
    code = f"""
import sys
from pathlib import Path
import numpy as np
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.seams import OpenRequest, Pooled, SizeRequest, WeightShape
runtime = RUNTIMES["tvm"]
shape = WeightShape("a", (64, 64), False)
options = RECIPES["fp32"].options()
assert runtime.estimate(SizeRequest("fp32", options, "encoder", "cpu", [shape])).weights_bytes
assert not [name for name in sys.modules if name.startswith("tvm")]
folder = Path({str(artifact)!r})
engine = runtime.open_encoder(OpenRequest(folder, "fp32", options, Pooled(), "cpu", 1))
engine.forward({{"input_ids": np.ones((1, 4), int), "attention_mask": np.ones((1, 4), int)}})
heavy = {{"tvm", "torch", "transformers", "scipy", "pandas", "sympy", "ray"}}
sys.exit(", ".join(sorted(heavy & set(sys.modules))) or None)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_files_are_those_that_are_opened(artifact: Path) -> None:
    assert {path.name for path in artifact.iterdir()} == {LIBRARY, WEIGHTS, FACTS}


def test_without_a_compiler_it_is_said_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    checkpoint = save_model(tmp_path / "model", "embeddings")
    with pytest.raises(ConfigError, match=r"model: .*linked by a C compiler.*install gcc or clang"):
        prepare("tvm", "fp32", checkpoint, Pooled(), tmp_path / "artifact")


def test_a_checkpoint_without_the_heads_weights_is_refused(tmp_path: Path) -> None:
    checkpoint: Checkpoint = save_model(tmp_path / "model", "embeddings")
    with pytest.raises(ConfigError, match=r"classifier\.bias"):
        prepare("tvm", "fp32", checkpoint, Logits(), tmp_path / "artifact")


def copy(artifact: Path, folder: Path) -> None:
    for path in artifact.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
