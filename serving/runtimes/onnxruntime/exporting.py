"""From a transformers model to an ONNX graph of any number of rows and tokens."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten

import numpy as np
import torch
from onnxscript.optimizer import optimize_ir
from torch import Tensor, nn
from torch.export import Dim

from serving.errors import ConfigError
from serving.runtimes.onnxruntime.graph_files import OUTPUT
from serving.runtimes.onnxruntime.sessions import open_session, session_options
from serving.runtimes.torch.model_inputs import as_tensors
from serving.seams import Arrays, Head, Logits

OPSET = 23
"""The first in which attention is one operation."""

REASON_CHARACTERS = 200
"""Most of the exporter's own words that are repeated."""

TOLERANCE = 1e-4
"""Largest difference of the graph's numbers from torch's, as a share of the largest.

Both compute in float32, in another order; a graph that holds a number of rows or tokens fixed, or
a wrong mask, is off by far more.
"""


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


def export_graph(module: ExportedOutput, example: Arrays, file: Path) -> None:
    """Write the graph of a model, its weights in a second file beside ``file``.

    Args:
        module: The model.
        example: A batch of more than one row and one token.
        file: What to write.

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
                opset_version=OPSET,
                input_names=module.names,
                output_names=[OUTPUT],
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
