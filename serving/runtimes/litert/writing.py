"""Writes the graph of an encoder: one row of any number of tokens, without padding or a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from torch import nn

from serving.runtimes.litert.graph import TOKENS, Graph, Value
from serving.runtimes.litert.graph_files import IDS, POSITIONS, TYPES
from serving.runtimes.litert.numbers import Float32, Numbers, floats, scaled
from serving.runtimes.torch.encoder_parts import EmbeddingParts, Encoder, EncoderLayer


def write_encoder(graph: Graph, encoder: Encoder, numbers: Numbers) -> Value:
    """Write everything that computes.

    Args:
        graph: An empty graph; it gets the inputs that ``graph_files`` names.
        encoder: What to write.
        numbers: How tables and the layers over tokens are rounded; norms, and layers that see one
            vector for each input, stay float32.

    Returns:
        Last hidden states (tokens, width), or logits (1, labels) where there is a classifier.
    """
    hidden = _embed(graph, encoder.embeddings, numbers)
    for index, layer in enumerate(encoder.layers):
        hidden = _layer(graph, f"layer{index}", hidden, layer, encoder, numbers)
    return _classify(graph, hidden, encoder.classifier) if encoder.classifier else hidden


def _embed(graph: Graph, parts: EmbeddingParts, numbers: Numbers) -> Value:
    rows = numbers.look_up(graph, "words", parts.words, graph.input(IDS))
    tables = {POSITIONS: parts.positions, TYPES: parts.token_types}
    # In the order in which transformers adds them.
    for name in (TYPES, POSITIONS):
        table = tables[name]
        if table is not None:
            more = numbers.look_up(graph, f"{name}_table", table, graph.input(name))
            rows = _add(graph, rows, more)
    rows = _normalise(graph, "embeddings_norm", rows, parts.norm)
    if parts.projection is None:
        return rows
    return numbers.multiply(graph, "projection", rows, [parts.projection])[0]


def _layer(
    graph: Graph, name: str, hidden: Value, layer: EncoderLayer, encoder: Encoder, numbers: Numbers
) -> Value:
    found = _attend(graph, name, hidden, layer, encoder.num_heads, numbers)
    hidden = _normalise(
        graph, f"{name}_attention_norm", _add(graph, found, hidden), layer.attention_norm
    )
    (wide,) = numbers.multiply(graph, f"{name}_intermediate", hidden, [layer.intermediate])
    wide = _activate(graph, wide, encoder.activation)
    (narrow,) = numbers.multiply(graph, f"{name}_output", wide, [layer.output])
    return _normalise(graph, f"{name}_output_norm", _add(graph, narrow, hidden), layer.output_norm)


def _attend(
    graph: Graph, name: str, hidden: Value, layer: EncoderLayer, num_heads: int, numbers: Numbers
) -> Value:
    layers = [layer.query, layer.key, layer.value]
    query, key, value = numbers.multiply(graph, f"{name}_attention", hidden, layers)
    width = query.shape[-1]
    size = width // num_heads
    query = scaled(graph, f"{name}_scaling", query, np.array([size**-0.5]))
    by_head = (num_heads, TOKENS, size)
    apart = [
        _transpose(graph, _reshape(graph, each, (TOKENS, num_heads, size)), by_head)
        for each in (query, key, value)
    ]
    scores = _batch_multiply(graph, apart[0], apart[1], (num_heads, TOKENS, TOKENS), turned=True)
    softmax = schema.SoftmaxOptionsT()
    softmax.beta = 1.0
    shares = graph.apply("SOFTMAX", [scores], scores.shape, softmax)
    found = _batch_multiply(graph, shares, apart[2], by_head)
    found = _reshape(graph, _transpose(graph, found, (TOKENS, num_heads, size)), (TOKENS, width))
    return numbers.multiply(graph, f"{name}_attention_output", found, [layer.attention_output])[0]


def _classify(graph: Graph, hidden: Value, layers: Sequence[tuple[nn.Linear, str | None]]) -> Value:
    width = hidden.shape[-1]
    bounds = [_integers(graph, (0, 0)), _integers(graph, (1, width))]
    row = graph.apply("SLICE", [hidden, *bounds], (1, width), schema.SliceOptionsT())
    for index, (layer, activation) in enumerate(layers):
        (row,) = Float32().multiply(graph, f"classifier{index}_", row, [layer])
        if activation is not None:
            row = _activate(graph, row, activation)
    return row


def _normalise(graph: Graph, name: str, value: Value, norm: nn.LayerNorm) -> Value:
    mean = _mean(graph, value)
    centred = graph.apply("SUB", [value, mean], value.shape, schema.SubOptionsT())
    square = graph.apply("MUL", [centred, centred], value.shape, schema.MulOptionsT())
    epsilon = graph.constant(f"{name}_epsilon", np.array([norm.eps], np.float32))
    variance = _add(graph, _mean(graph, square), epsilon)
    inverse = graph.apply("RSQRT", [variance], variance.shape)
    unit = graph.apply("MUL", [centred, inverse], value.shape, schema.MulOptionsT())
    weighted = scaled(graph, f"{name}_weight", unit, floats(norm.weight))
    return _add(graph, weighted, graph.constant(f"{name}_bias", floats(norm.bias)))


def _mean(graph: Graph, value: Value) -> Value:
    options = schema.ReducerOptionsT()
    options.keepDims = True
    return graph.apply("MEAN", [value, _integers(graph, (1,))], (value.shape[0], 1), options)


def _activate(graph: Graph, value: Value, activation: str) -> Value:
    if activation in ("relu", "tanh"):
        return graph.apply(activation.upper(), [value], value.shape)
    options = schema.GeluOptionsT()
    options.approximate = activation != "gelu"
    return graph.apply("GELU", [value], value.shape, options)


def _add(graph: Graph, one: Value, other: Value) -> Value:
    return graph.apply("ADD", [one, other], one.shape, schema.AddOptionsT())


def _reshape(graph: Graph, value: Value, shape: tuple[int, ...]) -> Value:
    options: Any = schema.ReshapeOptionsT()
    options.newShape = list(shape)
    return graph.apply("RESHAPE", [value, _integers(graph, shape)], shape, options)


def _transpose(graph: Graph, value: Value, shape: tuple[int, ...]) -> Value:
    """Swap the first two of three dimensions."""
    order = _integers(graph, (1, 0, 2))
    return graph.apply("TRANSPOSE", [value, order], shape, schema.TransposeOptionsT())


def _batch_multiply(
    graph: Graph, one: Value, other: Value, shape: tuple[int, ...], turned: bool = False
) -> Value:
    options = schema.BatchMatMulOptionsT()
    options.adjY = turned
    return graph.apply("BATCH_MATMUL", [one, other], shape, options)


def _integers(graph: Graph, numbers: Sequence[int]) -> Value:
    name = "_".join(map(str, numbers))
    return graph.constant(f"integers_{name}", np.array(numbers, np.int32))
