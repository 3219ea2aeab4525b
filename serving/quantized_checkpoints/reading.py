"""Read the tensors of a quantized checkpoint: its layers, and what is not quantized."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.errors import SourceError
from serving.quantized_checkpoints.form import QuantizedForm
from serving.quantized_checkpoints.layers import parts_of_layers

if TYPE_CHECKING:
    from torch import Tensor

    from serving.quantized_checkpoints.integer_weight import IntegerWeight


_DAMAGED = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a form's reader raises whose layer, or whose configuration, holds what it never does."""


def read_layers(
    files: Iterable[Path], form: QuantizedForm, said: Mapping[str, Any]
) -> Iterator[tuple[str, IntegerWeight | Tensor]]:
    """The quantized layers of the model, one after the other, as of ``QuantizedForm.read``.

    Args:
        files: The checkpoint's weights.
        form: How they are written.
        said: The checkpoint's ``quantization_config``.

    Raises:
        SourceError: A layer lacks a part, or its parts do not go together; names it.
    """
    places = _places(files)
    for layer, names in parts_of_layers(places, form).items():
        parts = {part: _tensor(places[name], name) for part, name in names.items()}
        yield from _weights(form, layer, parts, said)


def read_other_tensors(files: Iterable[Path], form: QuantizedForm) -> Iterator[tuple[str, Tensor]]:
    """The tensors that are no parts of quantized layers, as they are."""
    places = _places(files)
    layers = parts_of_layers(places, form)
    parts = {name for of_layer in layers.values() for name in of_layer.values()}
    for name in sorted(places.keys() - parts):
        yield name, _tensor(places[name], name)


def _weights(
    form: QuantizedForm, layer: str, parts: Mapping[str, Tensor], said: Mapping[str, Any]
) -> Iterable[tuple[str, IntegerWeight | Tensor]]:
    import torch

    try:
        weight = form.read(parts, said)
        if form.layers_in is None:
            return [(layer, weight)]
        assert isinstance(weight, torch.Tensor)
        shapes = {part: tuple(tensor.shape) for part, tensor in parts.items()}
        outputs = form.layers_in(layer, shapes, tuple(weight.shape))
        return zip(outputs, torch.split(weight, list(outputs.values())), strict=True)
    except _DAMAGED as error:
        raise SourceError(
            f"{layer}: its weight cannot be read from {', '.join(sorted(parts))}: {error}"
        ) from error


def _places(files: Iterable[Path]) -> dict[str, Path]:
    """The file of each tensor."""
    from safetensors import safe_open

    places: dict[str, Path] = {}
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            places.update(dict.fromkeys(tensors.keys(), file))
    return places


def _tensor(file: Path, name: str) -> Tensor:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        tensor: Tensor = tensors.get_tensor(name)
    return tensor
