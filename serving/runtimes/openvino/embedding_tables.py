"""Embedding tables in int8, looked up before they are expanded."""

from __future__ import annotations

import numpy as np
import openvino
from openvino import opset13


def compress_tables(graph: openvino.Model) -> None:
    """Round float32 tables (rows, width) to int8 with a scale per row, in place.

    nncf can do so as well, but in a graph whose activations are quantized, the plugin expands such
    a table to float32 when it compiles it: half of the numbers of a small model.
    """
    for lookup in graph.get_ops():
        if lookup.get_type_name() != "Gather":
            continue
        table = lookup.input_value(0).get_node()
        is_table = table.get_type_name() == "Constant" and len(table.get_output_shape(0)) == 2
        if is_table and table.get_element_type() == openvino.Type.f32:
            _compress(lookup, table)


def _compress(lookup: openvino.Node, table: openvino.Node) -> None:
    numbers = table.data
    scales = np.maximum(np.abs(numbers).max(1, keepdims=True) / 127, np.finfo(np.float32).tiny)
    rounded = np.round(numbers / scales).astype(np.int8)
    ids, axis = lookup.input_value(1), lookup.input_value(2)
    rows = opset13.convert(opset13.gather(opset13.constant(rounded), ids, axis), "f32")
    found = opset13.gather(opset13.constant(scales.astype(np.float32)), ids, axis)
    expanded = opset13.multiply(rows, found)
    for target in lookup.output(0).get_target_inputs():
        target.replace_source_output(expanded.output(0))
