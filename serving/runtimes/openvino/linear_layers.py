"""In which types a graph keeps the weights of its linear layers."""

from __future__ import annotations

from collections import Counter

import openvino

EXPANDING = frozenset({"Convert", "Subtract", "Multiply", "Reshape", "Transpose", "FakeQuantize"})
"""Operations between packed weights and the product that uses them."""


def describe_layers(graph: openvino.Model) -> str:
    """Count the linear layers by type, e.g. ``35 linear layers in u4, 1 in u8``."""
    products = [node for node in graph.get_ops() if node.get_type_name() == "MatMul"]
    forms = [_form(weight) for node in products if (weight := _weight(node)) is not None]
    counts = Counter(forms).most_common()
    if not counts:
        return "no linear layers"
    (first, number), *others = counts
    return ", ".join(
        [f"{number} linear layers in {first}", *(f"{count} in {form}" for form, count in others)]
    )


def _weight(product: openvino.Node) -> openvino.Node | None:
    """The constant behind the second operand; None if that is computed from the inputs."""
    node = product.input_value(1).get_node()
    while node.get_type_name() in EXPANDING:
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "Constant" else None


def _form(weight: openvino.Node) -> str:
    kind: str = weight.get_element_type().get_type_name()
    shape = list(weight.get_output_shape(0))
    # nncf keeps groups as (outputs, groups, inputs of a group).
    return f"{kind} (groups of {shape[2]})" if kind in ("u4", "i4") else kind
