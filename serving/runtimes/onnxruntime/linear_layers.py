"""Finds what is quantized in a graph: linear layers and tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, numpy_helper

SMALLEST_WIDTH = 16
"""Outputs of a layer that is worth it; classifiers over tokens have fewer."""


@dataclass(frozen=True, slots=True)
class LinearLayer:
    """A multiplication of every token's numbers by a constant matrix.

    Attributes:
        node: The multiplication.
        input: Name of what is multiplied, (rows, tokens, inputs).
        weight: float32 (inputs, outputs).
        bias: Name of what is added to its result and to nothing else; None without one.
        sum: That addition.
    """

    node: NodeProto
    input: str
    weight: NDArray[np.float32]
    bias: str | None = None
    sum: NodeProto | None = None

    @property
    def output(self) -> str:
        """Name of the layer's result, bias included."""
        name: str = (self.node if self.sum is None else self.sum).output[0]
        return name


@dataclass(frozen=True, slots=True)
class EmbeddingTable:
    """A look-up of rows of a constant matrix.

    Attributes:
        node: The look-up.
        name: Name of the matrix.
        weight: float32 (entries, width).
    """

    node: NodeProto
    name: str
    weight: NDArray[np.float32]


def find_linear_layers(graph: GraphProto) -> list[LinearLayer]:
    """Every linear layer over tokens, in the order of the graph.

    Poolers and classifiers stay as they are: they take no time worth saving, and nothing after
    them evens out what they lose. Over one vector per row they are another operation, ``Gemm``.
    """
    constants = _constants(graph)
    users: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    layers = []
    for node in graph.node:
        if node.op_type != "MatMul" or not _is_matrix(constants.get(node.input[1])):
            continue
        weight, added = constants[node.input[1]], users.get(node.output[0], [])
        if weight.shape[1] < SMALLEST_WIDTH:
            continue
        layer = LinearLayer(node, node.input[0], weight)
        if len(added) == 1 and added[0].op_type == "Add":
            (bias,) = (name for name in added[0].input if name != node.output[0])
            if bias in constants and constants[bias].shape == weight.shape[1:]:
                layer = LinearLayer(node, node.input[0], weight, bias, added[0])
        layers.append(layer)
    return layers


def find_tables(graph: GraphProto) -> list[EmbeddingTable]:
    """Every table of vectors, in the order of the graph."""
    constants = _constants(graph)
    return [
        EmbeddingTable(node, node.input[0], constants[node.input[0]])
        for node in graph.node
        if node.op_type == "Gather"
        and _is_matrix(constants.get(node.input[0]))
        and all(attribute.i == 0 for attribute in node.attribute if attribute.name == "axis")
    ]


def _constants(graph: GraphProto) -> dict[str, NDArray[np.float32]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def _is_matrix(constant: NDArray[np.float32] | None) -> bool:
    return constant is not None and constant.ndim == 2 and constant.dtype == np.float32
