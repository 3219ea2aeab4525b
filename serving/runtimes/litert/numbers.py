"""How the numbers of tables and linear layers are written into a graph: a class for each recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from torch import nn

from serving.runtimes.litert.calibrating import Ranges
from serving.runtimes.litert.graph import Graph, Scales, Value
from serving.runtimes.torch.conversions.smoothing import smoothing_factors

LARGEST = 127
"""The largest 8-bit weight; the kernels sum products of two of them in 32 bits on every CPU."""

SMALLEST = 1e-5
"""Stands for a range of nothing."""

ROOM = 1.25
"""How much wider the range of an output is than what was measured: what lies outside is cut off.

Of 1, 1.1, 1.25, 1.5 and 2, with outputs alone in 8 bits, the worst sentence of all-MiniLM-L6-v2 had
a cosine of 0.985, 0.990, 0.994, 0.997 and 0.995; their mean was 0.9994 up to 1.25, then 0.9992 and
0.9987.
"""

Floats = NDArray[np.floating[Any]]


class Numbers(Protocol):
    """Writes what a recipe rounds."""

    def look_up(self, graph: Graph, name: str, table: nn.Embedding, indices: Value) -> Value:
        """Rows of a table: float32 (tokens, width) for int32 (tokens,)."""

    def multiply(
        self, graph: Graph, name: str, input: Value, layers: Sequence[nn.Linear]
    ) -> list[Value]:
        """Outputs, float32 (tokens, outputs), of layers that share an input (tokens, inputs)."""


class Float32:
    """``fp32``."""

    def look_up(self, graph: Graph, name: str, table: nn.Embedding, indices: Value) -> Value:
        return _rows(graph, graph.constant(name, floats(table.weight)), indices)

    def multiply(
        self, graph: Graph, name: str, input: Value, layers: Sequence[nn.Linear]
    ) -> list[Value]:
        return [
            fully_connected(graph, input, graph.constant(f"{name}{i}", floats(layer.weight)), layer)
            for i, layer in enumerate(layers)
        ]


class Float16:
    """``f16``: expanded to float32 when the graph is opened."""

    def look_up(self, graph: Graph, name: str, table: nn.Embedding, indices: Value) -> Value:
        weight = graph.constant(name, floats(table.weight).astype(np.float16))
        rows = _rows(graph, weight, indices, np.float16)
        return graph.apply("DEQUANTIZE", [rows], rows.shape)

    def multiply(
        self, graph: Graph, name: str, input: Value, layers: Sequence[nn.Linear]
    ) -> list[Value]:
        results = []
        for i, layer in enumerate(layers):
            half = graph.constant(f"{name}{i}", floats(layer.weight).astype(np.float16))
            weight = graph.apply("DEQUANTIZE", [half], half.shape)
            results.append(fully_connected(graph, input, weight, layer))
        return results


class Int8Dynamic:
    """``int8-dynamic``: the kernel rounds each token's inputs at a scale and a zero of its own.

    Args:
        ranges: What layers get; empty where inputs are not made alike first.
        strength: As of ``smoothing_factors``.
    """

    def __init__(self, ranges: Mapping[nn.Module, Ranges], strength: float | None) -> None:
        self._ranges, self._strength = ranges, strength

    def look_up(self, graph: Graph, name: str, table: nn.Embedding, indices: Value) -> Value:
        return _rows(graph, graph.constant(name, *round_rows(floats(table.weight))), indices)

    def multiply(
        self, graph: Graph, name: str, input: Value, layers: Sequence[nn.Linear]
    ) -> list[Value]:
        factors = _shared_factors(layers, self._ranges, self._strength)
        if factors is not None:
            input = scaled(graph, f"{name}_factors", input, 1 / factors)
        results = []
        for i, layer in enumerate(layers):
            weight = floats(layer.weight) * (1 if factors is None else factors)
            constant = graph.constant(f"{name}{i}", *round_rows(weight))
            results.append(fully_connected(graph, input, constant, layer))
        return results


class Int8Static:
    """``int8-static``: inputs and outputs of linear layers in 8 bits at measured scales.

    The kernel gives integers, too, at one scale for all outputs. Each output has a range of its
    own, often a hundredth of another's, so that its weights are divided by it, and what comes out
    is multiplied by it again: every output has all 8 bits.

    Args:
        ranges: What layers get and give.
        strength: As of ``smoothing_factors``.
    """

    def __init__(self, ranges: Mapping[nn.Module, Ranges], strength: float) -> None:
        self._ranges, self._strength = ranges, strength

    def look_up(self, graph: Graph, name: str, table: nn.Embedding, indices: Value) -> Value:
        return _rows(graph, graph.constant(name, *round_rows(floats(table.weight))), indices)

    def multiply(
        self, graph: Graph, name: str, input: Value, layers: Sequence[nn.Linear]
    ) -> list[Value]:
        factors = _shared_factors(layers, self._ranges, self._strength)
        assert factors is not None
        got = self._ranges[layers[0]]
        step = range_scales(got.low / factors, got.high / factors)
        smooth = scaled(graph, f"{name}_factors", input, 1 / factors)
        rounded = graph.apply("QUANTIZE", [smooth], input.shape, number=np.int8, scales=step)
        return [
            self._layer(graph, f"{name}{i}", rounded, step, layer, factors)
            for i, layer in enumerate(layers)
        ]

    def _layer(
        self,
        graph: Graph,
        name: str,
        input: Value,
        step: Scales,
        layer: nn.Linear,
        factors: Floats,
    ) -> Value:
        given = self._ranges[layer]
        middle = (given.output_high + given.output_low) / 2
        reach = np.maximum((given.output_high - given.output_low) / 2, SMALLEST) * ROOM
        weight, scales = round_rows(floats(layer.weight) * factors / reach[:, None])
        bias = np.zeros_like(middle) if layer.bias is None else floats(layer.bias)
        bias_scale = step.scale * scales.scale
        sums = np.round((bias - middle) / reach / bias_scale).astype(np.int32)
        output = Scales(np.array([1 / LARGEST], np.float32))
        inputs = [
            input,
            graph.constant(name, weight, scales),
            graph.constant(f"{name}_bias", sums, Scales(bias_scale)),
        ]
        shape = (*input.shape[:-1], len(weight))
        integers = graph.apply(
            "FULLY_CONNECTED", inputs, shape, schema.FullyConnectedOptionsT(), np.int8, output
        )
        shares = graph.apply("DEQUANTIZE", [integers], shape)
        spread = scaled(graph, f"{name}_reach", shares, reach)
        center = graph.constant(f"{name}_middle", middle)
        return graph.apply("ADD", [spread, center], shape, schema.AddOptionsT())


def fully_connected(graph: Graph, input: Value, weight: Value, layer: nn.Linear) -> Value:
    """Multiply (…, inputs) by a weight (outputs, inputs) and add the layer's bias, in float32."""
    inputs = [input, weight]
    if layer.bias is not None:
        inputs.append(graph.constant(f"bias_{weight.index}", floats(layer.bias)))
    shape = (*input.shape[:-1], weight.shape[0])
    return graph.apply("FULLY_CONNECTED", inputs, shape, schema.FullyConnectedOptionsT())


def scaled(graph: Graph, name: str, value: Value, factors: Floats) -> Value:
    """Multiply the last dimension by a factor for each of its numbers."""
    inputs = [value, graph.constant(name, factors.astype(np.float32))]
    return graph.apply("MUL", inputs, value.shape, schema.MulOptionsT())


def round_rows(weight: Floats) -> tuple[NDArray[np.int8], Scales]:
    """Round a matrix with one scale for each of its rows."""
    scale = np.abs(weight).max(axis=1) / LARGEST
    scale = np.where(scale == 0, 1, scale).astype(np.float32)
    return np.round(weight / scale[:, None]).astype(np.int8), Scales(scale)


def range_scales(low: Floats, high: Floats) -> Scales:
    """One scale for numbers between the least of ``low`` and the largest of ``high``, and for 0."""
    least, largest = min(float(low.min()), 0.0), max(float(high.max()), 0.0)
    scale = max(largest - least, SMALLEST) / 255
    zero = int(np.clip(round(-128 - least / scale), -128, 127))
    return Scales(np.array([scale], np.float32), zero)


def floats(tensor: torch.Tensor) -> Floats:
    """The numbers of a parameter."""
    array: Floats = tensor.detach().numpy()
    return array


def _rows(graph: Graph, table: Value, indices: Value, number: type = np.float32) -> Value:
    shape = (*indices.shape, table.shape[1])
    return graph.apply("EMBEDDING_LOOKUP", [indices, table], shape, number=number)


def _shared_factors(
    layers: Sequence[nn.Linear], ranges: Mapping[nn.Module, Ranges], strength: float | None
) -> Floats | None:
    if strength is None:
        return None
    got = ranges[layers[0]]
    weight = torch.cat([layer.weight.detach() for layer in layers])
    largest = torch.from_numpy(np.maximum(got.high, -got.low))
    factors: Floats = smoothing_factors(weight, largest, strength).numpy()
    return factors
