"""A fused model as files, and back: its shape and positions as JSON, its modules and tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from serving.runtimes.torch.decoder.causal_lm import FusedModel, Layer, Shape
from serving.runtimes.torch.decoder.rotary import Rotary
from serving.runtimes.torch.kernels.kernel_module import KernelModule
from serving.runtimes.torch.reading_modules import read_modules
from serving.runtimes.torch.writing_modules import write_modules

_FORM = "decoder.json"


class _DecoderForm(BaseModel):
    """What a fused model is, without its numbers.

    Attributes:
        shape: Sizes for attention.
        vocabulary: Number of logits.
        hidden: Numbers of a token between layers.
        num_layers: How many.
        has_head_norms: Whether layers have norms of queries and keys.
        is_tied: Whether the output layer reads the table.
        frequencies: As of ``Rotary``, like ``scaling``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    shape: Shape
    vocabulary: int
    hidden: int
    num_layers: int
    has_head_norms: bool
    is_tied: bool
    frequencies: tuple[float, ...]
    scaling: float


def write_decoder(model: FusedModel, folder: Path) -> None:
    """Write a model, whose modules are kernels, to an empty folder."""
    form = _DecoderForm(
        shape=model.shape,
        vocabulary=model.vocabulary,
        hidden=model.norm.numel(),
        num_layers=len(model.layers),
        has_head_norms=any(layer.head_norm is not None for layer in model.layers),
        is_tied=model.is_tied,
        frequencies=tuple(model.rotary.frequencies.tolist()),
        scaling=model.rotary.scaling,
    )
    (folder / _FORM).write_text(form.model_dump_json(indent=1), encoding="utf-8")
    head = model.head
    if model.is_tied:  # made of the table, anew
        model.head = nn.Identity()
    write_modules(model, folder)
    model.head = head


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
    form = _DecoderForm.model_validate_json((folder / _FORM).read_bytes())
    model = _without_numbers(form)
    read_modules(model, folder, kernels)
    if form.is_tied:
        model.head = tied_head(model.table)
    return model


def _without_numbers(form: _DecoderForm) -> FusedModel:
    """A model whose tensors, and whose modules but the table, are only places for them."""
    layers = [
        Layer(
            nn.Identity(),
            nn.Identity(),
            nn.Identity(),
            nn.Identity(),
            attention_norm=_nothing(),
            mlp_norm=_nothing(),
            head_norm=_nothing() if form.has_head_norms else None,
        )
        for _ in range(form.num_layers)
    ]
    return FusedModel(
        shape=form.shape,
        rotary=Rotary(torch.tensor(form.frequencies), form.scaling),
        vocabulary=form.vocabulary,
        table=_without_rows(form.vocabulary, form.hidden),
        layers=layers,
        norm=_nothing(),
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
