"""Make an encoder's artifact: load in float32, export, quantize, write what ``opening`` maps."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import torch
from onnx import ModelProto, numpy_helper

from serving.errors import ConfigError
from serving.runtimes.onnx_export import ExportedOutput, export_graph
from serving.runtimes.onnxruntime.calibrating import measure_channels
from serving.runtimes.onnxruntime.checking import check_graph
from serving.runtimes.onnxruntime.graph_files import OUTPUT, WEIGHTS_BYTES
from serving.runtimes.onnxruntime.linear_layers import find_linear_layers
from serving.runtimes.onnxruntime.packing import pack
from serving.runtimes.onnxruntime.quantizing import quantize
from serving.runtimes.onnxruntime.rounding import largest_weight
from serving.runtimes.torch.padding import refuse_what_padding_changes
from serving.runtimes.torch.pooling import AUTO_CLASSES
from serving.runtimes.torch.pretrained import load_pretrained
from serving.seams import Prepared, PrepareRequest

OPSET = 23
"""The first in which attention is one operation."""


def prepare_encoder(request: PrepareRequest) -> Prepared:
    """Write ``model.onnx`` and ``model.data``.

    Raises:
        ConfigError: The model cannot be exported, the graph computes something else, or it has
            nothing to quantize.
        SourceError: The checkpoint lacks weights that the head needs, or is no such model.
    """
    assert request.head is not None
    torch.set_num_threads(request.threads)
    auto_class = AUTO_CLASSES[type(request.head)]
    model = load_pretrained(request.checkpoint, auto_class, torch.float32)
    refuse_what_padding_changes(model, request.head, request.example, request.checkpoint.folder)
    module = ExportedOutput(model, request.head, tuple(request.example))
    with TemporaryDirectory(dir=request.folder) as scratch:
        exported = Path(scratch) / "exported.onnx"
        try:
            export_graph(module, request.example, exported, OPSET, OUTPUT)
            check_graph(exported, module, request.example, request.threads)
        except ConfigError as error:
            raise ConfigError(f"{request.checkpoint.folder}: {error}") from error
        del model, module
        graph = onnx.load(exported)
        notes = _convert(graph, exported, request)
        size = sum(numpy_helper.to_array(tensor).nbytes for tensor in graph.graph.initializer)
        onnx.helper.set_model_props(graph, {WEIGHTS_BYTES: str(size)})
        converted = Path(scratch) / "converted.onnx"
        onnx.save(graph, converted, save_as_external_data=True, location="converted.data")
        del graph
        # In int8 a replica's own copies are small, and the file a third smaller without them.
        keep_packed = request.recipe == "fp32"
        pack(converted, request.folder, request.threads, keep_packed=keep_packed)
    return Prepared(size, notes)


def _convert(graph: ModelProto, exported: Path, request: PrepareRequest) -> tuple[str, ...]:
    """Quantize a graph in its recipe; returns notes for the manifest."""
    if request.recipe == "fp32":
        return ()
    largest, measured = largest_weight(), None
    layers = find_linear_layers(graph.graph)
    if not layers:
        raise ConfigError(
            f"{request.checkpoint.folder}: its graph has no linear layers to quantize; "
            f"serve it in fp32"
        )
    if request.recipe == "int8-static":
        names = list(dict.fromkeys(layer.input for layer in layers))
        measured = measure_channels(exported, names, request.calibration, request.threads)
    num_layers, num_tables = quantize(graph, largest, measured)
    bits = "8" if largest == np.iinfo(np.int8).max else "7 (no VNNI)"
    return (f"{num_layers} linear layers in {bits} bits, {num_tables} tables in 8",)
