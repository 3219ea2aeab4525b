"""What TensorRT would read, run by ONNX Runtime, which reads the same; and what it would refuse."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from serving.heads import pool
from serving.runtimes.onnxruntime.sessions import open_session, session_options
from serving.runtimes.tensorrt.engine_files import MOST_TOKENS, OUTPUT, limits
from serving.runtimes.tensorrt.graph import OPSET, write_graph
from serving.runtimes.tensorrt.runtime import why_not
from serving.runtimes.torch.pooling import AUTO_CLASSES
from serving.runtimes.torch.pretrained import load_pretrained
from serving.seams import Combination, Logits
from tests.matrix import takes_all
from tests.unit.runtimes.tiny_models import HEADS, one_row, padded_batch, save_model

FLOATS = {"fp32": onnx.TensorProto.FLOAT, "f16": onnx.TensorProto.FLOAT16}

# Exporting takes many seconds; in float32 it is what is tested of the runtime onnxruntime.
CASES = list(product(FLOATS, HEADS)) if takes_all() else [("f16", "classification")]

# Shares of the largest number. float32 sums in another order; float16 keeps 11 bits: the worst seen
# were 2e-6 and 3e-3.
TOLERANCES = {"fp32": 1e-5, "f16": 1e-2}


@pytest.mark.parametrize(("recipe", "task"), CASES)
def test_the_graph_is_the_model_in_the_recipes_type(tmp_path: Path, recipe: str, task: str) -> None:
    head, checkpoint = HEADS[task], save_model(tmp_path / "model", task)
    auto_class, file = AUTO_CLASSES[type(head)], tmp_path / "exported.onnx"
    reference: Any = load_pretrained(checkpoint, auto_class, torch.float32)
    model = load_pretrained(checkpoint, auto_class, torch.float32)
    write_graph(model, head, padded_batch([9, 4, 30]), recipe, file)

    graph = onnx.load(file)
    assert {entry.version for entry in graph.opset_import if entry.domain == ""} == {OPSET}
    others = set(FLOATS.values()) - {FLOATS[recipe]}
    assert not {tensor.data_type for tensor in graph.graph.initializer} & others
    (output,) = graph.graph.output
    assert output.name == OUTPUT
    assert output.type.tensor_type.elem_type == FLOATS[recipe]

    session = open_session(file, session_options(1))
    for lengths in ([40, 3, 17, 1, 40], [1], [64, 64]):
        batch = padded_batch(lengths)
        (found,) = session.run([OUTPUT], dict(batch))
        rows = pool(head, found.astype(np.float32), batch["attention_mask"])
        for index, row in enumerate(rows):
            alone = one_row(batch, index)
            with torch.inference_mode():
                said = reference(**{name: torch.from_numpy(a) for name, a in alone.items()})
            hidden = said.logits if isinstance(head, Logits) else said.last_hidden_state
            (wanted,) = pool(head, hidden.numpy(), alone["attention_mask"])
            assert np.abs(row - wanted).max() < TOLERANCES[recipe] * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("config", "rows", "tokens"),
    [
        ({"max_position_embeddings": 512}, 32, 512),
        ({"max_position_embeddings": 514}, 31, 514),
        ({"max_position_embeddings": 10**6}, 1, MOST_TOKENS),
        ({}, 32, 512),
    ],
)
def test_a_pass_is_bounded(config: dict[str, int], rows: int, tokens: int) -> None:
    assert limits(config) == (rows, tokens)


def test_other_recipes_and_kinds_are_refused() -> None:
    assert why_not(Combination("f16", "encoder", "cuda", "safetensors")) is None
    reason = why_not(Combination("int4", "encoder", "cuda", "safetensors"))
    assert reason == "tensorrt has no recipe int4; it has fp32, f16"
    reason = why_not(Combination("f16", "generator", "cuda", "safetensors"))
    assert reason == "tensorrt makes encoders only"
