"""Layers that some checkpoints have between pooling and the answer, in numpy and in float32.

They are sentence-transformers' modules Dense, LayerNorm and Normalize, computed as it does. They
work on one row per text, so that they cost little beside the model, whatever runtime runs that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors.numpy import load_file, save_file

from serving.heads import normalize

LAYERS_FILE = "layers.safetensors"

Weights = Mapping[str, NDArray[np.float32]]
"""Of one layer, by the names that the library gives them."""

DenseActivation = Literal["identity", "tanh", "relu", "sigmoid", "silu"]


class _Layer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Dense(_Layer):
    """A linear layer and an activation.

    Attributes:
        activation: What becomes of the linear layer's output.
        adds_input: Whether the input is added to that, through a matrix ``residual.weight`` of its
            own where the widths differ.
    """

    kind: Literal["dense"] = "dense"
    activation: DenseActivation
    adds_input: bool = False


class LayerNorm(_Layer):
    """Rows of mean 0 and variance 1, scaled and shifted."""

    kind: Literal["layer_norm"] = "layer_norm"


class UnitLength(_Layer):
    """Rows of length 1, before another layer."""

    kind: Literal["unit_length"] = "unit_length"


RowLayer = Annotated[Dense | LayerNorm | UnitLength, Field(discriminator="kind")]

_EPSILON = 1e-5
"""``torch.nn.LayerNorm``'s, which the library leaves as it is."""


def apply_layers(
    layers: Sequence[RowLayer], weights: Sequence[Weights], rows: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Compute all layers, each with its weights, of rows (texts, width)."""
    for layer, own in zip(layers, weights, strict=True):
        match layer:
            case Dense():
                rows = _dense(layer, own, rows)
            case LayerNorm():
                centred = rows - rows.mean(axis=1, keepdims=True)
                spread = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + _EPSILON)
                rows = centred / spread * own["norm.weight"] + own["norm.bias"]
            case UnitLength():
                rows = normalize(rows)
    return rows


def write_weights(folder: Path, weights: Sequence[Weights]) -> None:
    """Write the weights of all layers to a folder; nothing if there are none."""
    if any(weights):
        tensors = {f"{n}.{name}": w for n, own in enumerate(weights) for name, w in own.items()}
        save_file(tensors, folder / LAYERS_FILE)


def read_weights(folder: Path, num_layers: int) -> list[Weights]:
    """Read what ``write_weights`` wrote."""
    file = folder / LAYERS_FILE
    tensors = load_file(file) if file.is_file() else {}
    return [
        {name.partition(".")[2]: w for name, w in tensors.items() if name.startswith(f"{n}.")}
        for n in range(num_layers)
    ]


def _dense(layer: Dense, own: Weights, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    linear = rows @ own["linear.weight"].T + own.get("linear.bias", np.float32(0))
    answers = _activate(linear, layer.activation)
    if layer.adds_input:
        answers += rows @ own["residual.weight"].T if "residual.weight" in own else rows
    return answers


def _activate(x: NDArray[np.float32], activation: DenseActivation) -> NDArray[np.float32]:
    match activation:
        case "tanh":
            return np.tanh(x)
        case "relu":
            return np.maximum(x, 0)
        case "sigmoid":
            return np.exp(-np.logaddexp(np.float32(0), -x))
        case "silu":
            return x * np.exp(-np.logaddexp(np.float32(0), -x))
    return x
