"""Rows of any length, one after the other, also after one that failed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.runtimes.litert.graph_files import GRAPH
from serving.runtimes.litert.interpreters import RowInterpreter
from serving.seams import Pooled
from tests.unit.runtimes.tiny_models import prepare, save_model


def row_of(interpreter: RowInterpreter, length: int) -> dict[str, NDArray[np.int32]]:
    return {name: np.ones(length, np.int32) for name in interpreter.inputs}


def test_a_length_without_memory_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save_model(tmp_path / "model", "embeddings")
    prepare("litert", "fp32", checkpoint, Pooled(), tmp_path / "artifact")
    interpreter = RowInterpreter(tmp_path / "artifact" / GRAPH, threads=1)
    before = interpreter.run(row_of(interpreter, 3))

    def refuse() -> None:
        raise RuntimeError("no memory")

    with monkeypatch.context() as patched:
        patched.setattr(interpreter._interpreter, "allocate_tensors", refuse)
        with pytest.raises(RuntimeError, match="no memory"):
            interpreter.run(row_of(interpreter, 7))
    np.testing.assert_array_equal(interpreter.run(row_of(interpreter, 3)), before)
    assert interpreter.run(row_of(interpreter, 7)).shape[-2:] == (7, before.shape[-1])
