"""Compares a graph with the model that it was exported from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from serving.errors import ConfigError
from serving.runtimes.onnx_export import ExportedOutput
from serving.runtimes.onnxruntime.graph_files import OUTPUT
from serving.runtimes.onnxruntime.sessions import open_session, session_options
from serving.runtimes.torch.model_inputs import as_tensors
from serving.seams import Arrays

TOLERANCE = 1e-4
"""Largest difference of the graph's numbers from torch's, as a share of the largest.

Both compute in float32, in another order; a graph that holds a number of rows or tokens fixed, or
a wrong mask, is off by far more.
"""


def check_graph(file: Path, module: ExportedOutput, example: Arrays, threads: int) -> None:
    """Compare a graph with its model, for a batch and for its first row alone.

    Raises:
        ConfigError: It cannot be run, or computes something else.
    """
    session = open_session(file, session_options(threads))
    length = int(example["attention_mask"][0].sum())
    alone = {name: array[:1, :length] for name, array in example.items()}
    for batch in (example, alone):
        with torch.inference_mode():
            expected = module(*as_tensors(batch, "cpu").values()).numpy()
        (found,) = session.run([OUTPUT], dict(batch))
        if expected.ndim == 3:  # whatever stands for padding is nobody's answer
            is_token = batch["attention_mask"].astype(bool)
            expected, found = expected[is_token], found[is_token]
        if not np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max():
            raise ConfigError(
                "exported to ONNX it computes something else; serve it on another runtime"
            )
