"""The integers of a quantized checkpoint in the place of the float weights that they stand for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import Type, opset13

from serving.errors import ConfigError
from serving.quantized_checkpoints.integer_weight import IntegerWeight


def keep_integers(
    graph: openvino.Model, layers: Iterable[tuple[str, IntegerWeight]], name: str
) -> None:
    """Have a float32 graph multiply with the integers of a checkpoint, in place.

    A layer's product is found by its numbers: the constant that it multiplies with is, to the last
    bit, what the integers stand for. So nothing that conversion changed goes unnoticed.

    Args:
        graph: Converted from the expanded checkpoint; its products take weights (outputs, inputs).
        layers: The layers by name, and their integers.
        name: Of the checkpoint, for messages.

    Raises:
        ConfigError: The graph multiplies with other numbers than a layer stands for, or there are
            no integers of OpenVINO's for its zeros or groups; names the layer.
    """
    products = _products_by_weight(graph)
    replaced: set[bytes] = set()
    for layer, weight in layers:
        digest = _digest(weight.expanded().numpy())
        if digest not in products:
            raise ConfigError(
                f"{name}: converted for OpenVINO, {layer} has other numbers than the checkpoint's "
                "integers stand for. Take another recipe, which is made of float numbers"
            )
        if digest in replaced:
            continue
        replaced.add(digest)
        try:
            for product in products[digest]:
                _multiply_with(product, weight)
        except ValueError as error:
            raise ConfigError(
                f"{name}: {layer} {error}. Take another recipe, which is made of float numbers"
            ) from None
    graph.validate_nodes_and_infer_types()


def _products_by_weight(graph: openvino.Model) -> dict[bytes, list[openvino.Node]]:
    products: dict[bytes, list[openvino.Node]] = {}
    for node in graph.get_ops():
        if node.get_type_name() == "MatMul" and node.get_attributes()["transpose_b"]:
            weight = node.input_value(1).get_node()
            if weight.get_type_name() == "Constant" and weight.get_element_type() == Type.f32:
                products.setdefault(_digest(weight.data), []).append(node)
    return products


def _digest(weight: NDArray[np.float32]) -> bytes:
    digest = hashlib.blake2b(repr(weight.shape).encode())
    digest.update(np.ascontiguousarray(weight).data)
    return digest.digest()


def _multiply_with(product: openvino.Node, weight: IntegerWeight) -> None:
    """Replace the weight of a product; where groups are no neighbours, its inputs are sorted."""
    groups = weight.group_of.numpy()
    order = np.argsort(groups, kind="stable").astype(np.int32)
    if (np.diff(groups) < 0).any():
        inputs = product.input_value(0)
        axis = opset13.constant(np.int64(-1))
        product.input(0).replace_source_output(
            opset13.gather(inputs, opset13.constant(order), axis).output(0)
        )
    num_groups = weight.scales.shape[1]
    if (np.bincount(groups, minlength=num_groups) * num_groups != len(groups)).any():
        raise ValueError("has groups of different sizes, which OpenVINO's weights cannot have")
    codes = weight.codes.numpy()[:, order].reshape(len(weight.codes), num_groups, -1)
    expanded = _expanded(codes, weight.scales.numpy(), weight.zeros.numpy(), weight.bits)
    shape = opset13.constant(np.array(weight.codes.shape, np.int64))
    product.input(1).replace_source_output(
        opset13.reshape(expanded, shape, special_zero=False).output(0)
    )


def _expanded(
    codes: NDArray[np.int16], scales: NDArray[np.float32], zeros: NDArray[np.float32], bits: int
) -> openvino.Node:
    """(codes - zeros) × scales in the operations that the plugin knows as a packed weight.

    Args:
        codes: (outputs, groups, inputs of a group).
        scales: (outputs, groups).
        zeros: Likewise.
        bits: Of a code.

    Raises:
        ValueError: A zero is no whole number of these bits.
    """
    half = 1 << (bits - 1)
    if codes.min() < 0:  # from -half: move them up, and their zeros with them
        codes, zeros = codes + half, zeros + half
    if (zeros != np.round(zeros)).any() or zeros.min() < 0 or zeros.max() >= 2 * half:
        raise ValueError(f"has zeros that are no whole numbers of {bits} bits")
    unsigned, signed = (Type.u4, Type.i4) if bits == 4 else (Type.u8, Type.i8)
    if (zeros == half).all():
        numbers = opset13.convert(_constant(codes - half, signed), Type.f32)
    else:
        moved = opset13.convert(_constant(zeros[:, :, None], unsigned), Type.f32)
        numbers = opset13.subtract(opset13.convert(_constant(codes, unsigned), Type.f32), moved)
    return opset13.multiply(numbers, _scales(scales[:, :, None]))


def _constant(numbers: NDArray[Any], kind: Type) -> openvino.Node:
    is_signed = kind in (Type.i4, Type.i8)
    # OpenVINO reads arrays as if they were in C's order; some forms write weights transposed.
    whole = numbers.astype(np.int8 if is_signed else np.uint8, order="C")
    return opset13.constant(whole, dtype=kind)


def _scales(scales: NDArray[np.float32]) -> openvino.Node:
    """In float16 where that holds every one of them exactly, as most checkpoints write them."""
    with np.errstate(over="ignore"):
        half = scales.astype(np.float16, order="C")
    if (half.astype(np.float32) == scales).all():
        return opset13.convert(opset13.constant(half), Type.f32)
    return opset13.constant(np.ascontiguousarray(scales))
