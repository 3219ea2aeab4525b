"""Make an encoder's artifact: load in float32, write its graph, compare, write the recipe's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from serving.errors import ConfigError
from serving.recipes.smoothing import SmoothingOptions
from serving.runtimes.litert.calibrating import measure_ranges
from serving.runtimes.litert.graph import Graph
from serving.runtimes.litert.graph_files import FACTS, GRAPH, OUTPUT, GraphFacts
from serving.runtimes.litert.numbers import Float16, Float32, Int8Dynamic, Int8Static, Numbers
from serving.runtimes.litert.opening import open_encoder
from serving.runtimes.litert.writing import write_encoder
from serving.runtimes.torch.encoder_parts import Encoder, find_parts
from serving.runtimes.torch.model_inputs import as_tensors
from serving.runtimes.torch.pooling import AUTO_CLASSES, pool
from serving.runtimes.torch.pretrained import load_pretrained
from serving.seams import OpenRequest, Prepared, PrepareRequest

TOLERANCE = 1e-4
"""Largest difference of the float32 graph's rows from torch's, as a share of the largest number.

Both compute in float32, in another order, and exponentials by other polynomials (2e-6 on
all-MiniLM-L6-v2); a part in the wrong place is off by far more.
"""

STATIC_SMOOTHING = 0.8
"""Strength of ``int8-static`` where the configuration names none."""


def prepare_encoder(request: PrepareRequest) -> Prepared:
    """Write the graph and what an engine has to know of it.

    Raises:
        ConfigError: The model is of another architecture, or the graph computes something else.
        SourceError: The checkpoint lacks weights that the head needs, or is no such model.
    """
    assert request.head is not None
    torch.set_num_threads(request.threads)
    model = load_pretrained(request.checkpoint, AUTO_CLASSES[type(request.head)], torch.float32)
    try:
        encoder = find_parts(model, "litert")
        size = _write(request.folder, encoder, Float32())
        _check(model, request)
    except ConfigError as error:
        raise type(error)(f"{request.checkpoint.folder}: {error}") from error
    if request.recipe == "fp32":
        return Prepared(size)
    numbers, notes = _numbers(model, request)
    return Prepared(_write(request.folder, encoder, numbers), notes)


def _numbers(model: nn.Module, request: PrepareRequest) -> tuple[Numbers, tuple[str, ...]]:
    """How the recipe's numbers are written, and notes for the manifest."""
    if request.recipe == "f16":
        return Float16(), ()
    assert isinstance(request.options, SmoothingOptions)
    strength = request.options.smooth
    if request.recipe == "int8-static" and strength is None:
        strength = STATIC_SMOOTHING
    ranges = {} if strength is None else measure_ranges(model, request.calibration)
    if request.recipe == "int8-dynamic":
        return Int8Dynamic(ranges, strength), ()
    assert strength is not None
    return Int8Static(ranges, strength), (f"inputs of linear layers are smoothed by {strength}",)


def _write(folder: Path, encoder: Encoder, numbers: Numbers) -> int:
    graph = Graph()
    output = write_encoder(graph, encoder, numbers)
    graph.write(folder / GRAPH, {OUTPUT: output})
    facts = GraphFacts(
        file_bytes=(folder / GRAPH).stat().st_size,
        weights_bytes=graph.weights_bytes,
        padding_id=encoder.embeddings.padding_id,
    )
    (folder / FACTS).write_text(facts.model_dump_json())
    return graph.weights_bytes


def _check(model: nn.Module, request: PrepareRequest) -> None:
    """Compare the float32 graph with the model, for each input of the example.

    Raises:
        ConfigError: It computes something else.
    """
    head, example = request.head, request.example
    assert head is not None
    engine = open_encoder(
        OpenRequest(request.folder, "fp32", request.options, head, "cpu", request.threads)
    )
    tensors = as_tensors(example, "cpu")
    with torch.inference_mode():
        expected = pool(head, model(**tensors), tensors["attention_mask"]).numpy()
    difference = np.abs(engine.forward(example) - expected).max()
    if not difference <= TOLERANCE * np.abs(expected).max():
        raise ConfigError("as a LiteRT graph it computes something else; use another runtime")
