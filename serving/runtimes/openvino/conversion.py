"""From a transformers model to OpenVINO's graph of the same numbers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from serving.errors import ConfigError
from serving.seams import Arrays


class _Positional(nn.Module):
    """A transformers model that takes its inputs in order and gives its one output.

    Args:
        model: Has ``logits``, or else ``last_hidden_state``, in what it returns.
        names: Its arguments, in order.
    """

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: Tensor) -> Tensor:
        output: Any = self.model(**dict(zip(self.names, inputs, strict=True)))
        result: Tensor = output.logits if "logits" in output else output.last_hidden_state
        return result


def convert(model: nn.Module, example: Arrays, name: str) -> openvino.Model:
    """Trace a model and convert the trace.

    Args:
        model: A transformers model in float32.
        example: A batch of more than one row, of different lengths: what is 1 or without padding
            everywhere might be taken for a constant.
        name: Of the checkpoint, for messages.

    Returns:
        A graph of inputs int64 (any, any) by the names of ``example``.

    Raises:
        ConfigError: Something in it cannot be converted.
    """
    _make_traceable(model)
    names = tuple(example)
    tensors = tuple(torch.from_numpy(array) for array in example.values())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing; answers are compared afterwards
            graph = openvino.convert_model(_Positional(model, names), example_input=tensors)
    except Exception as error:  # of every kind, from torch, transformers and OpenVINO
        raise ConfigError(
            f"{name}: OpenVINO cannot convert the model; serve it on another runtime: {error}"
        ) from error
    for port, input_name in zip(graph.inputs, names, strict=True):
        port.get_tensor().set_names({input_name})
    graph.reshape({input_name: openvino.PartialShape([-1, -1]) for input_name in names})
    return graph


def _make_traceable(model: Any) -> None:
    """Choose the form of the same computation that OpenVINO converts rightly, and as fast.

    torch's fused attention gives zeros where every key is masked, as for padding that is outside of
    a sliding window; OpenVINO's gives NaN, which the next layer spreads to the real tokens.
    """
    model.set_attn_implementation("eager")
    model.config.use_cache = False


def reference_output(model: nn.Module, batch: Arrays) -> NDArray[np.float32]:
    """What the model itself gives: last hidden states or logits."""
    positional = _Positional(model, tuple(batch))
    with torch.inference_mode():
        output = positional(*(torch.from_numpy(array.copy()) for array in batch.values()))
    result: NDArray[np.float32] = output.numpy()
    return result
