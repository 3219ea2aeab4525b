"""The ONNX graph that TensorRT reads, in the type in which it shall compute."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from serving.runtimes.onnx_export import ExportedOutput, export_graph
from serving.runtimes.tensorrt.engine_files import OUTPUT
from serving.seams import Arrays, Head

OPSET = 18
"""What torch's exporter writes by itself, and every TensorRT since 10 reads."""

TYPES = {"fp32": torch.float32, "f16": torch.float16}
"""By recipe, the type of every number."""


def write_graph(model: nn.Module, head: Head, example: Arrays, recipe: str, file: Path) -> None:
    """Cast a model, and write its graph of any number of rows and tokens.

    Raises:
        ConfigError: The exporter cannot express the model.
    """
    cast = ExportedOutput(model, head, tuple(example)).to(TYPES[recipe])
    export_graph(cast, example, file, OPSET, OUTPUT)
