"""From a transformers model to OpenVINO's graph of it, which keeps keys and values as its state."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino
import torch
from openvino import opset13
from openvino._offline_transformations import apply_make_stateful_transformation
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer

from serving.errors import ConfigError

INPUTS = ("input_ids", "attention_mask", "position_ids")
ROWS, TOKENS, CACHED = 2, 5, 3
"""Of the example that is traced. None is 1, nor are two the same: what is might be taken for a
constant."""


@dataclass(frozen=True, slots=True)
class CachedLayer:
    """What a layer keeps of each token: ``heads`` keys and values of ``width`` numbers."""

    heads: int
    width: int


class _WithCache(nn.Module):
    """A causal language model that takes and gives keys and values as plain tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        output: Any = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=_filled_cache(past),
            use_cache=True,
        )
        layers = output.past_key_values.layers
        return (output.logits, *(part for layer in layers for part in (layer.keys, layer.values)))


def _filled_cache(past: tuple[Tensor, ...]) -> DynamicCache:
    """A cache that holds keys and values already; filling it by its own methods is not traceable.

    Every layer grows without bound: a window, where there is one, is in the mask.
    """
    cache = DynamicCache()
    cache.layer_class_to_replicate = None
    for keys, values in zip(past[::2], past[1::2], strict=True):
        layer = DynamicLayer()
        layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache


def convert(model: Any, name: str) -> openvino.Model:
    """Trace a model and convert the trace.

    Args:
        model: A transformers model in float32 with a language model's head. Its implementation of
            attention becomes ``sdpa``, which the paged attention of ``paged_graph`` takes the place
            of.
        name: Of the checkpoint, for messages.

    Returns:
        A graph of ``INPUTS``, int64 (sequences, tokens), the mask over cached tokens, too, and of
        ``beam_idx``, int32 (sequences,), which says whose state each sequence goes on with; gives
        ``logits``, float32 (sequences, tokens, vocabulary).

    Raises:
        ConfigError: Something in it cannot be converted.
    """
    try:
        model.set_attn_implementation("sdpa")
        layers = _cached_layers(model)
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # of tracing; answers are compared afterwards
            graph = openvino.convert_model(_WithCache(model), example_input=_example(model, layers))
    except Exception as error:  # of every kind, from torch, transformers and OpenVINO
        raise ConfigError(
            f"{name}: OpenVINO cannot convert the model; serve it on another runtime: {error}"
        ) from error
    _name_ports(graph, layers)
    _keep_state(graph, layers)
    return graph


def _cached_layers(model: Any) -> list[CachedLayer]:
    """Ask the model itself: configurations name these sizes in a dozen ways."""
    with torch.inference_mode():
        output = model(torch.zeros(1, 2, dtype=torch.int64), use_cache=True)
    shapes = [layer.keys.shape for layer in output.past_key_values.layers]
    return [CachedLayer(heads=shape[1], width=shape[3]) for shape in shapes]


def _example(model: Any, layers: list[CachedLayer]) -> tuple[Tensor, ...]:
    ids = torch.arange(ROWS * TOKENS).view(ROWS, TOKENS) % model.config.vocab_size
    mask = torch.ones(ROWS, CACHED + TOKENS, dtype=torch.int64)
    positions = torch.arange(CACHED, CACHED + TOKENS).repeat(ROWS, 1)
    past = [
        torch.zeros(ROWS, layer.heads, CACHED, layer.width) for layer in layers for _ in range(2)
    ]
    return (ids, mask, positions, *past)


def _name_ports(graph: openvino.Model, layers: list[CachedLayer]) -> None:
    num_cached = 2 * len(layers)
    names = [*INPUTS, *(f"past.{i}" for i in range(num_cached))]
    shapes = [[-1, -1]] * len(INPUTS)
    shapes += [[-1, layer.heads, -1, layer.width] for layer in layers for _ in range(2)]
    for parameter, name, shape in zip(graph.get_parameters(), names, shapes, strict=True):
        parameter.set_friendly_name(name)
        parameter.output(0).get_tensor().set_names({name})
        parameter.set_partial_shape(openvino.PartialShape(shape))
    outputs = ["logits", *(f"present.{i}" for i in range(num_cached))]
    for port, name in zip(graph.outputs, outputs, strict=True):
        port.get_tensor().set_names({name})
    graph.validate_nodes_and_infer_types()


def _keep_state(graph: openvino.Model, layers: list[CachedLayer]) -> None:
    """Turn keys and values from inputs and outputs into variables, empty at first.

    This is the form, with ``beam_idx``, in which the pass to paged attention knows them.
    """
    beams = opset13.parameter([-1], np.int32, name="beam_idx")
    beams.output(0).get_tensor().set_names({"beam_idx"})
    ids, *_ = graph.get_parameters()
    past = graph.get_parameters()[len(INPUTS) :]
    graph.add_parameters([beams])
    for parameter in past:
        consumers = list(parameter.output(0).get_target_inputs())
        chosen = opset13.gather(parameter, beams, opset13.constant(0))
        for consumer in consumers:
            consumer.replace_source_output(chosen.output(0))
    graph.validate_nodes_and_infer_types()
    variables = {f"past.{i}": f"present.{i}" for i in range(len(past))}
    apply_make_stateful_transformation(graph, variables)
    sequences = opset13.gather(
        opset13.shape_of(ids, output_type="i64"), opset13.constant([0]), opset13.constant(0)
    )
    numbers = {f"past.{2 * i + j}": layer for i, layer in enumerate(layers) for j in range(2)}
    for node in graph.get_ops():
        if node.get_type_name() == "ReadValue":
            layer = next(
                layer for name, layer in numbers.items() if name + "present" in _variable(node)
            )
            nothing = opset13.constant(np.array([layer.heads, 0, layer.width], np.int64))
            shape = opset13.concat([sequences, nothing], 0)
            empty = opset13.broadcast(opset13.constant(np.float32(0)), shape)
            node.set_arguments([empty.output(0)])
    graph.validate_nodes_and_infer_types()


def _variable(node: openvino.Node) -> str:
    name: str = node.get_attributes()["variable_id"]
    return name
