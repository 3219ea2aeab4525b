"""A graph that takes any tokens of many sequences, with keys and values in blocks."""

from __future__ import annotations

import openvino
from openvino import opset13
from openvino._offline_transformations import paged_attention_transformation

WANTED = "wanted_tokens"
"""The input that says after which tokens logits are wanted."""

WINDOW = "sliding_window"
"""The key under which a graph says how many tokens its layers see, if not all see everything."""


def window_of(graph: openvino.Model) -> int | None:
    """What a graph says under ``WINDOW``."""
    return int(graph.get_rt_info(WINDOW).astype(str)) if graph.has_rt_info(WINDOW) else None


def page(graph: openvino.Model) -> None:
    """Change a graph of ``stateful_graph.convert``, quantized or not, in place.

    Its inputs become ``input_ids`` and ``position_ids``, int64 (tokens,), of all segments together;
    for segments, int32: ``past_lens`` (segments,), and ``subsequence_begins`` and
    ``block_indices_begins`` (segments + 1,) into the tokens and into ``block_indices``, the blocks
    that hold each segment's sequence; ``max_context_len``, int32 (); the caches ``key_cache.N`` and
    ``value_cache.N`` of each layer, in blocks; and ``WANTED``, int64 (rows,). It gives float32
    (rows, 1, vocabulary).
    """
    paged_attention_transformation(graph)
    _choose_before_the_head(graph)


def _choose_before_the_head(graph: openvino.Model) -> None:
    """Multiply with the output layer only the tokens whose logits are wanted."""
    (result,) = graph.get_results()
    head = result.input_value(0).get_node()
    while head.get_type_name() != "MatMul":
        head = head.input_value(0).get_node()
    wanted = opset13.parameter([-1], openvino.Type.i64, name=WANTED)
    wanted.output(0).get_tensor().set_names({WANTED})
    graph.add_parameters([wanted])
    chosen = opset13.gather(head.input_value(0), wanted, opset13.constant(0))
    head.input(0).replace_source_output(chosen.output(0))
    graph.validate_nodes_and_infer_types()
