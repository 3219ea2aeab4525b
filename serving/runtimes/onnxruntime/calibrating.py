"""Measures the inputs of linear layers over batches of real inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from serving.runtimes.onnxruntime.rounding import Channels
from serving.runtimes.onnxruntime.sessions import open_session, session_options
from serving.seams import Arrays


def measure_channels(
    graph_file: Path, names: Sequence[str], batches: Sequence[Arrays], threads: int
) -> dict[str, Channels]:
    """Find the extremes of intermediate results; padding does not count.

    Args:
        graph_file: A graph in float32; another is written beside it.
        names: Intermediate results of its, each (rows, tokens, channels).
        batches: Inputs.
        threads: Intra-op threads.
    """
    model = onnx.load(graph_file, load_external_data=False)
    for name in names:
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    observed = graph_file.with_name("observed.onnx")
    onnx.save(model, observed)
    session = open_session(observed, session_options(threads))
    found: dict[str, Channels] = {}
    for batch in batches:
        is_token = batch["attention_mask"].astype(bool)
        for name, values in zip(names, session.run(names, dict(batch)), strict=True):
            found[name] = _widened(found.get(name), values[is_token])
    return found


def _widened(before: Channels | None, values: NDArray[np.float32]) -> Channels:
    low, high = values.min(axis=0), values.max(axis=0)
    if before is None:
        return Channels(low, high)
    return Channels(np.minimum(before.low, low), np.maximum(before.high, high))
