"""Writes the graph of an encoder: rows of tokens that are padded to whole eights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from serving.runtimes.torch.encoder_parts import EmbeddingParts, Encoder, EncoderLayer
from serving.runtimes.tvm import kernels
from serving.runtimes.tvm.graph import KernelGraph
from serving.runtimes.tvm.graph_files import IDS, MASK, POSITIONS, TYPES


def tables_of(parts: EmbeddingParts) -> Mapping[str, nn.Embedding]:
    """Tables by the names of the inputs that look into them, in the order of the inputs."""
    found = {IDS: parts.words, TYPES: parts.token_types, POSITIONS: parts.positions}
    return {name: table for name, table in found.items() if table is not None}


def write_encoder(graph: KernelGraph, encoder: Encoder, dtype: torch.dtype) -> None:
    """Write everything that computes, with tables and layers over tokens kept in ``dtype``.

    All is computed in float32; norms, biases and layers that see one vector for each input are kept
    so, too. The output is last hidden states (rows, eights, 8, blocks, lanes), or logits
    (rows, 1, 1, blocks, lanes) where there is a classifier.
    """
    tables = tables_of(encoder.embeddings)
    ids = [graph.input(name, "int32") for name in tables]
    mask = graph.input(MASK, "float32")

    def compute() -> Any:
        hidden = _embed(graph, encoder.embeddings, ids, list(tables.values()), dtype)
        for index, layer in enumerate(encoder.layers):
            hidden = _layer(graph, f"layer{index}", hidden, mask, layer, encoder, dtype)
        return _classify(graph, hidden, encoder.classifier) if encoder.classifier else hidden

    graph.write(compute)


def _embed(
    graph: KernelGraph,
    parts: EmbeddingParts,
    ids: Sequence[Any],
    tables: Sequence[nn.Embedding],
    dtype: torch.dtype,
) -> Any:
    pairs = []
    for index, (numbers, table) in enumerate(zip(ids, tables, strict=True)):
        pairs += [numbers, graph.constant(f"table{index}", _in_blocks(table.weight.to(dtype)))]
    hidden = _normalise(graph, "embeddings_norm", graph.apply(kernels.look_up, pairs), parts.norm)
    if parts.projection is None:
        return hidden
    return _linear(graph, "projection", hidden, parts.projection, dtype)


def _layer(
    graph: KernelGraph,
    name: str,
    hidden: Any,
    mask: Any,
    layer: EncoderLayer,
    encoder: Encoder,
    dtype: torch.dtype,
) -> Any:
    query, key, value = (
        _linear(graph, f"{name}_{part}", hidden, linear, dtype)
        for part, linear in (("query", layer.query), ("key", layer.key), ("value", layer.value))
    )
    turned = graph.apply(kernels.turn, [key], encoder.num_heads)
    shares = graph.apply(kernels.share, [graph.apply(kernels.score, [query, turned, mask])])
    found = graph.apply(kernels.mix, [shares, value])
    attended = _linear(
        graph, f"{name}_attention_output", found, layer.attention_output, dtype, added=[hidden]
    )
    hidden = _normalise(graph, f"{name}_attention_norm", attended, layer.attention_norm)
    wide = _linear(
        graph, f"{name}_intermediate", hidden, layer.intermediate, dtype, encoder.activation
    )
    narrow = _linear(graph, f"{name}_output", wide, layer.output, dtype, added=[hidden])
    return _normalise(graph, f"{name}_output_norm", narrow, layer.output_norm)


def _classify(
    graph: KernelGraph, hidden: Any, layers: Sequence[tuple[nn.Linear, str | None]]
) -> Any:
    row = graph.apply(kernels.first_token, [hidden])
    for index, (layer, activation) in enumerate(layers):
        row = _linear(graph, f"classifier{index}", row, layer, torch.float32, activation)
    return row


def _linear(
    graph: KernelGraph,
    name: str,
    hidden: Any,
    layer: nn.Linear,
    dtype: torch.dtype,
    activation: str | None = None,
    added: Sequence[Any] = (),
) -> Any:
    outputs, inputs = layer.weight.shape
    lanes = kernels.num_lanes(outputs)
    packed = layer.weight.reshape(outputs // lanes, lanes, inputs).transpose(1, 2)
    weight = graph.constant(f"{name}_weight", packed.to(dtype))
    bias = graph.constant(f"{name}_bias", _in_blocks(layer.bias))
    return graph.apply(kernels.linear, [hidden, weight, bias, *added], activation)


def _normalise(graph: KernelGraph, name: str, hidden: Any, norm: nn.LayerNorm) -> Any:
    weight = graph.constant(f"{name}_weight", _in_blocks(norm.weight))
    bias = graph.constant(f"{name}_bias", _in_blocks(norm.bias))
    return graph.apply(kernels.normalise, [hidden, weight, bias], norm.eps)


def _in_blocks(tensor: Tensor) -> Tensor:
    """Part the last dimension into blocks and lanes."""
    width = tensor.shape[-1]
    lanes = kernels.num_lanes(width)
    return tensor.reshape(*tensor.shape[:-1], width // lanes, lanes)
