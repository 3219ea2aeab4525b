"""From a transformers model to an ONNX graph of any number of rows and tokens."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten

import torch
from onnxscript.optimizer import optimize_ir
from torch import Tensor, nn
from torch.export import Dim

from serving.errors import ConfigError
from serving.runtimes.torch.model_inputs import as_tensors
from serving.seams import Arrays, Head, Logits

REASON_CHARACTERS = 200
"""Most of the exporter's own words that are repeated."""


class ExportedOutput(nn.Module):
    """What a head reads of a transformers model, for arrays in the order of ``names``."""

    def __init__(self, model: nn.Module, head: Head, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.attribute = "logits" if isinstance(head, Logits) else "last_hidden_state"
        self.names = tuple(names)
        self.eval()

    def forward(self, *tensors: Tensor) -> Tensor:
        output = self.model(**dict(zip(self.names, tensors, strict=True)))
        wanted: Tensor = getattr(output, self.attribute)
        return wanted


def export_graph(
    module: ExportedOutput, example: Arrays, file: Path, opset: int, output: str
) -> None:
    """Write the graph of a model, its weights in a second file beside ``file``.

    Args:
        module: The model.
        example: A batch of more than one row and one token.
        file: What to write.
        opset: Version of ONNX's operations.
        output: Name of the graph's only output.

    Raises:
        ConfigError: The exporter cannot express the model.
    """
    tensors = tuple(as_tensors(example, "cpu").values())
    any_size = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    try:
        with _silence():
            program = torch.onnx.export(
                module,
                tensors,
                dynamo=True,
                opset_version=opset,
                input_names=module.names,
                output_names=[output],
                dynamic_shapes=(tuple(any_size for _ in tensors),),
                verbose=False,
                # Its optimizer would fuse rotary positions of one row into an operation that
                # ONNX Runtime runs for batches of one row only.
                optimize=False,
            )
            assert program is not None
            optimize_ir(program.model)
            program.save(file, external_data=True)
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip()
        raise ConfigError(
            f"it cannot be exported to ONNX: "
            f"{shorten(reason, REASON_CHARACTERS, placeholder=' …')}; serve it on another runtime"
        ) from error


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's remarks on its own progress from the log of what is being prepared."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
