"""The modules that sentence-transformers' files have after pooling, as layers of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from serving.errors import ConfigError
from serving.hub import WEIGHTS
from serving.seams import Checkpoint
from serving.tasks.row_layers import (
    Dense,
    DenseActivation,
    LayerNorm,
    RowLayer,
    UnitLength,
    Weights,
)
from serving.tasks.sentence_transformers_files import ModuleEntry, read_module_config

ROW_MODULES = ("Dense", "LayerNorm", "Normalize", "Dropout")
"""Classes of the library that may follow the pooling; Dropout does nothing after the training."""

_ACTIVATIONS: dict[str, DenseActivation] = {
    "Identity": "identity",
    "Tanh": "tanh",
    "ReLU": "relu",
    "Sigmoid": "sigmoid",
    "SiLU": "silu",
}

Shapes = dict[str, tuple[int, ...]]


class DenseSettings(BaseModel):
    """The config of the module ``Dense``."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    in_features: int = Field(ge=1)
    out_features: int = Field(ge=1)
    bias: bool = True
    activation_function: str = "torch.nn.modules.activation.Tanh"
    module_input_name: str = "sentence_embedding"
    module_output_name: str | None = None
    use_residual: bool = False

    @property
    def shapes(self) -> Shapes:
        """Of its weights."""
        square = self.in_features == self.out_features
        return {
            "linear.weight": (self.out_features, self.in_features),
            **({"linear.bias": (self.out_features,)} if self.bias else {}),
            **(
                {"residual.weight": (self.out_features, self.in_features)}
                if self.use_residual and not square
                else {}
            ),
        }


class LayerNormSettings(BaseModel):
    """The config of the module ``LayerNorm``."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    dimension: int = Field(ge=1)


class NormalizeSettings(BaseModel):
    """The config of the module ``Normalize``."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    module_input_name: str = "sentence_embedding"
    module_output_name: str | None = None


class FoundLayer(NamedTuple):
    """A layer as the files have it.

    Attributes:
        layer: What it does.
        module: Where it is from.
        shapes: Of its weights; empty if it has none.
        widths: Numbers that it takes, and gives; None if it takes any.
    """

    layer: RowLayer
    module: ModuleEntry
    shapes: Shapes
    widths: tuple[int, int] | None


def read_row_layers(
    checkpoint: Checkpoint, modules: Sequence[ModuleEntry]
) -> tuple[FoundLayer, ...]:
    """Read what the modules after the pooling do, their weights left where they are.

    Raises:
        ConfigError: A module has a setting that is not built here, or its weights are missing or of
            other shapes.
    """
    layers = tuple(_layer(checkpoint, module) for module in modules if module.kind != "Dropout")
    for found in layers:
        if found.shapes:
            _check_weights(checkpoint, found)
    return layers


def width_after(checkpoint: Checkpoint, layers: Sequence[FoundLayer], width: int) -> int:
    """Numbers of a row of ``width`` after the layers.

    Raises:
        ConfigError: One takes rows of another width.
    """
    for found in layers:
        if found.widths is None:
            continue
        takes, gives = found.widths
        if takes != width:
            raise ConfigError(
                f"{checkpoint.folder / found.module.path}: takes {takes} numbers; what comes "
                f"before gives {width}"
            )
        width = gives
    return width


def load_weights(checkpoint: Checkpoint, found: FoundLayer) -> Weights:
    """Load the weights of a layer in float32; they were checked before.

    Raises:
        ConfigError: One is NaN or infinite.
    """
    from safetensors.torch import load_file

    if not found.shapes:
        return {}
    file = checkpoint.folder / found.module.path / WEIGHTS
    weights = {
        name: tensor.float().numpy()
        for name, tensor in load_file(file).items()
        if name in found.shapes
    }
    for name, weight in weights.items():
        if not np.isfinite(weight).all():
            raise ConfigError(f"{file}: {name} has numbers that are NaN or infinite")
    return weights


def _layer(checkpoint: Checkpoint, module: ModuleEntry) -> FoundLayer:
    if module.kind == "Dense":
        dense = read_module_config(checkpoint, module, DenseSettings)
        _require_embedding(checkpoint, module, dense)
        layer = Dense(
            activation=_activation(checkpoint, module, dense.activation_function),
            adds_input=dense.use_residual,
        )
        return FoundLayer(layer, module, dense.shapes, (dense.in_features, dense.out_features))
    if module.kind == "LayerNorm":
        width = read_module_config(checkpoint, module, LayerNormSettings).dimension
        shapes: Shapes = {"norm.weight": (width,), "norm.bias": (width,)}
        return FoundLayer(LayerNorm(), module, shapes, (width, width))
    _require_embedding(
        checkpoint, module, read_module_config(checkpoint, module, NormalizeSettings)
    )
    return FoundLayer(UnitLength(), module, {}, None)


def _require_embedding(
    checkpoint: Checkpoint, module: ModuleEntry, settings: DenseSettings | NormalizeSettings
) -> None:
    names = {settings.module_input_name, settings.module_output_name or settings.module_input_name}
    if names != {"sentence_embedding"}:
        raise ConfigError(
            f"{checkpoint.folder / module.path}: {module.kind} of {', '.join(sorted(names))}: only "
            "sentence_embedding is worked on after the pooling"
        )


def _activation(checkpoint: Checkpoint, module: ModuleEntry, path: str) -> DenseActivation:
    name = path.rpartition(".")[2]
    if not path.startswith("torch.nn.") or name not in _ACTIVATIONS:
        raise ConfigError(
            f"{checkpoint.folder / module.path}: activation_function {path!r} is not supported; "
            f"supported: {', '.join(_ACTIVATIONS)} of torch.nn"
        )
    return _ACTIVATIONS[name]


def _check_weights(checkpoint: Checkpoint, found: FoundLayer) -> None:
    folder = checkpoint.folder / found.module.path
    if not (folder / WEIGHTS).is_file():
        others = sorted(file.name for file in folder.glob("*.bin"))
        hint = f"; it holds {', '.join(others)}, which is not loaded" if others else ""
        raise ConfigError(f"{folder}: no {WEIGHTS}{hint}")
    shapes = _shapes(folder / WEIGHTS)
    for name, shape in found.shapes.items():
        if shapes.get(name) != shape:
            has = f"is {list(shapes[name])}" if name in shapes else "is missing"
            raise ConfigError(f"{folder / WEIGHTS}: {name} {has}; expected {list(shape)}")


def _shapes(file: Any) -> Shapes:
    from safetensors import safe_open

    try:
        with safe_open(file, framework="np") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118 (safe_open is no mapping)
    except Exception as error:  # safetensors raises whatever the bytes lead it to
        raise ConfigError(f"{file}: cannot be read as weights: {error}") from error
