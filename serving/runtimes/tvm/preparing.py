"""Make an encoder's artifact: load in float32, write its graph, compile it, compare."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from serving.errors import ConfigError
from serving.runtimes.torch.aligned_file import save_aligned
from serving.runtimes.torch.encoder_parts import Encoder, find_parts
from serving.runtimes.torch.model_inputs import as_tensors
from serving.runtimes.torch.pooling import AUTO_CLASSES, pool
from serving.runtimes.torch.pretrained import load_pretrained
from serving.runtimes.tvm.graph import KernelGraph
from serving.runtimes.tvm.graph_files import FACTS, LIBRARY, WEIGHTS, LibraryFacts
from serving.runtimes.tvm.opening import open_encoder
from serving.runtimes.tvm.target import target_here
from serving.runtimes.tvm.writing import tables_of, write_encoder
from serving.seams import OpenRequest, Prepared, PrepareRequest

TOLERANCE = 1e-4
"""Largest difference of the graph's rows from torch's, as a share of the largest number.

Both compute in float32, in another order, and exponentials by other polynomials; a part in the
wrong place is off by far more.
"""

TYPES = {"fp32": torch.float32, "f16": torch.float16}
"""By recipe, what tables and layers over tokens are kept in."""

NOTE = "compiled with schedules of ours, not tuned"


def prepare_encoder(request: PrepareRequest) -> Prepared:
    """Write the library, its numbers and what an engine has to know of them.

    Raises:
        ConfigError: The model is of another architecture, or the graph computes something else.
        SourceError: The checkpoint lacks weights that the head needs, or is no such model.
    """
    assert request.head is not None
    torch.set_num_threads(request.threads)
    model = load_pretrained(request.checkpoint, AUTO_CLASSES[type(request.head)], torch.float32)
    try:
        encoder = find_parts(model, "tvm")
        _round(encoder, TYPES[request.recipe])
        weights_bytes = _write(encoder, request)
        _check(model, request)
    except ConfigError as error:
        raise type(error)(f"{request.checkpoint.folder}: {error}") from error
    return Prepared(weights_bytes, (NOTE,))


def _round(encoder: Encoder, dtype: torch.dtype) -> None:
    """Give the model the numbers that the graph will have, so that they can be compared."""
    tables = tables_of(encoder.embeddings).values()
    modules: list[nn.Embedding | nn.Linear] = [*tables, *encoder.linear_layers()]
    for module in modules:
        module.weight.copy_(module.weight.to(dtype))


def _write(encoder: Encoder, request: PrepareRequest) -> int:
    graph, (target, flags) = KernelGraph(), target_here()
    write_encoder(graph, encoder, TYPES[request.recipe])
    library = request.folder / LIBRARY
    graph.compile(target, library)
    save_aligned(graph.numbers, request.folder / WEIGHTS)
    weights_bytes = sum(tensor.nbytes for tensor in graph.numbers.values())
    tables = tables_of(encoder.embeddings)
    facts = LibraryFacts(
        library_bytes=library.stat().st_size,
        weights_bytes=weights_bytes,
        flags=flags,
        entries={name: table.num_embeddings for name, table in tables.items()},
        padding_id=encoder.embeddings.padding_id,
    )
    (request.folder / FACTS).write_text(facts.model_dump_json())
    return weights_bytes


def _check(model: nn.Module, request: PrepareRequest) -> None:
    """Compare the graph with the model, for the rows of the example.

    Raises:
        ConfigError: It computes something else.
    """
    head, example = request.head, request.example
    assert head is not None
    engine = open_encoder(
        OpenRequest(request.folder, request.recipe, request.options, head, "cpu", request.threads)
    )
    tensors = as_tensors(example, "cpu")
    with torch.inference_mode():
        expected = pool(head, model(**tensors), tensors["attention_mask"]).numpy()
    difference = np.abs(engine.forward(example) - expected).max()
    if not difference <= TOLERANCE * np.abs(expected).max():
        raise ConfigError("compiled by TVM it computes something else; use another runtime")
