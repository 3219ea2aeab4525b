"""Rewrites a float32 graph: linear layers over tokens multiply 8-bit integers, tables hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from serving.runtimes.onnxruntime.linear_layers import (
    EmbeddingTable,
    LinearLayer,
    find_linear_layers,
    find_tables,
)
from serving.runtimes.onnxruntime.rounding import (
    Channels,
    FixedRange,
    fix_range,
    round_columns,
    round_rows,
)

MICROSOFT = "com.microsoft"
"""Domain of ONNX Runtime's own operations."""

COMMON: Mapping[str, np.ndarray] = {
    "last_axis": np.array([-1], np.int64),
    "smallest": np.array(1e-30, np.float32),
    "token_step": np.array(1 / 127, np.float32),
    "token_zero": np.array(128, np.uint8),
}
"""Constants of every token that is rounded as it comes."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """What becomes of a graph.

    Attributes:
        nodes: By the name of a node's result, what stands in its place.
        constants: New ones.
    """

    nodes: dict[str, list[NodeProto]] = field(default_factory=dict)
    constants: list[TensorProto] = field(default_factory=list)

    def add_constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name


def quantize(
    model: ModelProto, largest: int, measured: Mapping[str, Channels] | None = None
) -> tuple[int, int]:
    """Rewrite a graph.

    Args:
        model: The graph with its numbers; it is changed.
        largest: The largest 8-bit weight of a linear layer.
        measured: By the name of each linear layer's input, what to expect there; without it, each
            token is rounded at a scale of its own as it comes.

    Returns:
        Number of linear layers and of tables that were rewritten.
    """
    graph = model.graph
    layers, tables = find_linear_layers(graph), find_tables(graph)
    replacement = Replacement()
    for table in tables:
        _replace_table(table, replacement)
    sharing: dict[str, list[LinearLayer]] = {}
    for layer in layers:
        sharing.setdefault(layer.input, []).append(layer)
    if measured is None:
        for name, value in COMMON.items():
            replacement.add_constant(name, value)
    for name, those in sharing.items():
        if measured is None:
            _replace_dynamic(name, those, largest, replacement)
        else:
            fixed = fix_range(measured[name], [layer.weight for layer in those])
            _replace_static(name, those, fixed, largest, replacement)
    _apply(replacement, graph)
    model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return len(layers), len(tables)


def _replace_table(table: EmbeddingTable, replacement: Replacement) -> None:
    (result,), indices = table.node.output, table.node.input[1]
    numbers, scales = round_rows(table.weight)
    weight = replacement.add_constant(f"{result}_table", numbers)
    scale = replacement.add_constant(f"{result}_scales", scales)
    replacement.nodes[result] = [
        helper.make_node("Gather", [weight, indices], [f"{result}_int8"]),
        helper.make_node("Cast", [f"{result}_int8"], [f"{result}_float"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [scale, indices], [f"{result}_scale"]),
        helper.make_node("Mul", [f"{result}_float", f"{result}_scale"], [result]),
    ]


def _replace_dynamic(
    name: str, layers: list[LinearLayer], largest: int, replacement: Replacement
) -> None:
    """Divide each token by its largest number, round at the one scale that fits all then.

    ``DynamicQuantizeLinear`` would take one scale for the whole batch, so that each answer would
    depend on its company: by up to a quarter of its length on all-MiniLM-L6-v2.
    """
    high, low, size, unit, rounded = (
        f"{name}_{what}" for what in ("high", "low", "size", "unit", "uint8")
    )
    nodes = [
        helper.make_node("ReduceMax", [name, "last_axis"], [high]),
        helper.make_node("ReduceMin", [name, "last_axis"], [low]),
        helper.make_node("Neg", [low], [f"{low}_negative"]),
        helper.make_node("Max", [high, f"{low}_negative", "smallest"], [size]),
        helper.make_node("Div", [name, size], [unit]),
        helper.make_node("QuantizeLinear", [unit, "token_step", "token_zero"], [rounded]),
    ]
    for layer in layers:
        (result,) = layer.node.output
        product = helper.make_node(
            "MatMulIntegerToFloat",
            [
                rounded,
                *_weight(layer, layer.weight, largest, replacement, "token_step"),
                "token_zero",
            ],
            [f"{result}_unit"],
            domain=MICROSOFT,
        )
        nodes += [product, helper.make_node("Mul", [f"{result}_unit", size], [result])]
        replacement.nodes[result], nodes = nodes, []


def _replace_static(
    name: str,
    layers: list[LinearLayer],
    fixed: FixedRange,
    largest: int,
    replacement: Replacement,
) -> None:
    smooth, rounded = f"{name}_smooth", f"{name}_uint8"
    factors = replacement.add_constant(f"{name}_factors", 1 / fixed.divisors)
    step = replacement.add_constant(f"{name}_step", np.array(fixed.scale))
    zero = replacement.add_constant(f"{name}_zero", np.array(fixed.zero))
    nodes = [
        helper.make_node("Mul", [name, factors], [smooth]),
        helper.make_node("QuantizeLinear", [smooth, step, zero], [rounded]),
    ]
    for layer in layers:
        weight = layer.weight * fixed.divisors[:, None]
        inputs = [rounded, *_weight(layer, weight, largest, replacement, step), zero]
        if layer.sum is not None and layer.bias is not None:
            inputs += ["", layer.bias]
            replacement.nodes[layer.sum.output[0]] = []
        product = helper.make_node("MatMulIntegerToFloat", inputs, [layer.output], domain=MICROSOFT)
        replacement.nodes[layer.node.output[0]], nodes = [*nodes, product], []


def _weight(
    layer: LinearLayer, weight: np.ndarray, largest: int, replacement: Replacement, step: str
) -> list[str]:
    """Add a layer's rounded weights; returns the operation's second to fourth inputs."""
    (result,) = layer.node.output
    numbers, scales = round_columns(weight, largest)
    return [
        replacement.add_constant(f"{result}_weight", numbers),
        step,
        replacement.add_constant(f"{result}_scales", scales),
    ]


def _apply(replacement: Replacement, graph: GraphProto) -> None:
    nodes = [new for node in graph.node for new in replacement.nodes.get(node.output[0], [node])]
    used = {name for node in nodes for name in node.input}
    constants = [*graph.initializer, *replacement.constants]
    kept = [tensor for tensor in constants if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
