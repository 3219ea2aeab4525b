"""Make an encoder's artifact: load in float32, convert the graph, compare, quantize, write."""

from __future__ import annotations

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from torch import nn

from serving.errors import ConfigError
from serving.heads import pool
from serving.runtimes.openvino.conversion import convert, reference_output
from serving.runtimes.openvino.linear_layers import describe_layers
from serving.runtimes.openvino.opening import GRAPH, WEIGHTS
from serving.runtimes.openvino.quantization import QUANTIZATIONS
from serving.runtimes.torch.padding import refuse_what_padding_changes
from serving.runtimes.torch.pooling import AUTO_CLASSES
from serving.runtimes.torch.pretrained import load_pretrained
from serving.seams import Arrays, Head, Prepared, PrepareRequest

TOLERANCE = 1e-3
"""Largest difference of an output's numbers between torch and the float32 graph, as a share of the
largest number: another order of sums makes 1e-6, an operation that was fixed to the shape of the
example something near 1, or an error."""


def prepare(request: PrepareRequest) -> Prepared:
    """Write the graph and its weights.

    Raises:
        ConfigError: OpenVINO cannot convert the model, or what it makes of it answers otherwise.
        SourceError: The checkpoint lacks weights that the head needs, or is no such model.
    """
    assert request.head is not None
    torch.set_num_threads(request.threads)
    name = str(request.checkpoint.folder)
    model = load_pretrained(request.checkpoint, AUTO_CLASSES[type(request.head)], torch.float32)
    refuse_what_padding_changes(model, request.head, request.example, request.checkpoint.folder)
    graph = convert(model, request.example, name)
    check_answers(graph, model, request.head, request.example, name)
    del model
    graph = QUANTIZATIONS[request.recipe](graph, request)
    # There is no such way to bfloat16, of which float16 holds every bit that a usual weight has.
    openvino.save_model(graph, request.folder / GRAPH, compress_to_fp16=request.recipe == "bf16")
    written = openvino.Core().read_model(request.folder / GRAPH, request.folder / WEIGHTS)
    return Prepared((request.folder / WEIGHTS).stat().st_size, (describe_layers(written),))


def check_answers(
    graph: openvino.Model, model: nn.Module, head: Head, example: Arrays, name: str
) -> None:
    """Compare both on the example and on other numbers of rows and tokens.

    Raises:
        ConfigError: The graph fails, or gives other numbers than the model.
    """
    properties = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
    }
    compiled = openvino.Core().compile_model(graph, "CPU", properties)
    for batch in _of_several_shapes(example):
        mask = batch["attention_mask"]
        expected = pool(head, reference_output(model, batch), mask)
        try:
            found = pool(head, compiled(batch)[0], mask)
        except (RuntimeError, ValueError) as error:  # an operation, or a result, of another shape
            raise ConfigError(_refusal(name, "cannot take", batch)) from error
        difference = np.abs(found - expected)
        if not (difference <= TOLERANCE * np.abs(expected).max()).all():
            raise ConfigError(_refusal(name, "answers otherwise than in torch for", batch))


def _of_several_shapes(example: Arrays) -> list[dict[str, NDArray[np.int64]]]:
    tokens = example["attention_mask"].shape[1]
    first = int(example["attention_mask"][0].sum())
    return [
        dict(example),
        {name: array[:1, :first].copy() for name, array in example.items()},
        {name: array[:, : max(1, tokens // 2)].copy() for name, array in example.items()},
        {name: np.concatenate([array] * 3) for name, array in example.items()},
    ]


def _refusal(name: str, what: str, batch: Arrays) -> str:
    rows, tokens = batch["attention_mask"].shape
    return (
        f"{name}: converted for OpenVINO, the model {what} {rows} rows of {tokens} tokens; "
        f"serve it on another runtime"
    )
