"""A fused model as files, and back: its shape and positions as JSON, its modules and tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from serving.runtimes.torch.decoder.causal_lm import FusedModel, Layer, Shape
from serving.runtimes.torch.decoder.families.family import Form
from serving.runtimes.torch.decoder.rotary import Rotary
from serving.runtimes.torch.kernels.kernel_module import KernelModule
from serving.runtimes.torch.reading_modules import read_modules
from serving.runtimes.torch.writing_modules import write_modules

_FORM = "decoder.json"


class _StoredRotary(BaseModel):
    """See ``Rotary``."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    frequencies: tuple[float, ...]
    scaling: float


class _StoredLayer(BaseModel):
    """A layer's place for numbers.

    Attributes:
        tensors: Which of ``LAYER_TENSORS`` it has.
        rotary: As of ``Layer``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    tensors: tuple[str, ...]
    rotary: int


class _StoredForm(BaseModel):
    """What a fused model is, without its numbers.

    Attributes:
        form: How its layers compute.
        shape: Sizes for attention.
        vocabulary: Number of logits.
        hidden: Numbers of a token between layers.
        window: As of ``FusedModel``; likewise ``is_tied`` and ``rotaries``.
        has_norm_bias: Whether the last norm has one.
        has_positions: Whether positions are added to embeddings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    form: Form
    shape: Shape
    vocabulary: int
    hidden: int
    window: int | None
    has_norm_bias: bool
    has_positions: bool
    is_tied: bool
    layers: tuple[_StoredLayer, ...]
    rotaries: tuple[_StoredRotary, ...]


def write_decoder(model: FusedModel, folder: Path) -> None:
    """Write a model, whose modules are kernels, to an empty folder."""
    form = _StoredForm(
        form=model.form,
        shape=model.shape,
        vocabulary=model.vocabulary,
        hidden=model.norm.numel(),
        window=model.window,
        has_norm_bias=model.norm_bias is not None,
        has_positions=model.positions is not None,
        is_tied=model.is_tied,
        layers=tuple(_stored_layer(layer) for layer in model.layers),
        rotaries=tuple(
            _StoredRotary(frequencies=tuple(part.frequencies.tolist()), scaling=part.scaling)
            for part in model.rotaries
        ),
    )
    (folder / _FORM).write_text(form.model_dump_json(indent=1), encoding="utf-8")
    head = model.head
    if model.is_tied:  # made of the table, anew
        model.head = nn.Identity()
    write_modules(model, folder)
    model.head = head


def _stored_layer(layer: Any) -> _StoredLayer:
    present = tuple(name for name, tensor in layer.tensors().items() if tensor is not None)
    return _StoredLayer(tensors=present, rotary=layer.rotary)


def read_decoder(
    folder: Path,
    kernels: Iterable[type[KernelModule]],
    tied_head: Callable[[nn.Module], nn.Module],
) -> FusedModel:
    """Read what ``write_decoder`` wrote.

    Args:
        folder: Where.
        kernels: Classes that its modules may have.
        tied_head: Makes an output layer that shares the table.

    Raises:
        ConfigError: A module is of another class, or this CPU cannot run it.
    """
    form = _StoredForm.model_validate_json((folder / _FORM).read_bytes())
    model = _without_numbers(form)
    read_modules(model, folder, kernels)
    if form.is_tied:
        model.head = tied_head(model.table)
    return model


def _without_numbers(form: _StoredForm) -> FusedModel:
    """A model whose tensors, and whose modules but the table, are only places for them."""
    layers = [
        Layer(
            nn.Identity(),
            nn.Identity(),
            nn.Identity(),
            nn.Identity(),
            tensors={name: _nothing() for name in layer.tensors},
            rotary=layer.rotary,
        )
        for layer in form.layers
    ]
    return FusedModel(
        form=form.form,
        shape=form.shape,
        rotaries=[Rotary(torch.tensor(part.frequencies), part.scaling) for part in form.rotaries],
        vocabulary=form.vocabulary,
        table=_without_rows(form.vocabulary, form.hidden),
        layers=layers,
        norm=_nothing(),
        norm_bias=_nothing() if form.has_norm_bias else None,
        positions=_nothing() if form.has_positions else None,
        window=form.window,
        head=nn.Identity(),
        is_tied=form.is_tied,
    )


def _without_rows(vocabulary: int, hidden: int) -> nn.Embedding:
    # Drawing first values, even none, would import torch's compiler: two seconds of every replica.
    return nn.Embedding(
        vocabulary, hidden, _weight=torch.empty(vocabulary, hidden, device="meta"), _freeze=True
    )


def _nothing() -> Tensor:
    return torch.empty(0, device="meta")
