"""QuIP#'s checkpoints: codes of E8 points between two Hadamard transforms (arXiv:2402.04396)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serving.quantized_checkpoints.form import Integers, QuantizedForm, Shapes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class _Codebook:
    """A codebook, or one and that of what it leaves over.

    Attributes:
        number: What a layer's ``codebook_id`` is.
        version: What the configuration's ``codebook_version`` is.
        bits: Of a weight; so many words of 64 bits has a row for each 64 inputs.
        residual_scale: What the second codebook's numbers are divided by.
    """

    number: int
    version: int
    bits: int
    residual_scale: float = 1.0


_CODEBOOKS = {
    "E8P12": _Codebook(7, 1, 2),
    "E8P12RVQ3B": _Codebook(18, 0, 3, 2.04),
    "E8P12RVQ4B": _Codebook(17, 1, 4, 3.45),
}

_FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "upgate_proj": ("up_proj", "gate_proj")}
"""The model's layers that lie in one of the checkpoint's, from above."""

_UNREAD = ("A", "B", "bias", "ocs_dupe_inds")
"""Parts that the library once had, or has for other models."""


def why_not(config: Mapping[str, Any]) -> str | None:
    """Say which codebook, version or option is not read."""
    name = config.get("codebook")
    codebook = _CODEBOOKS.get(name) if isinstance(name, str) else None
    if codebook is None:
        return f"codebook is {name!r}; {', '.join(_CODEBOOKS)} are read"
    wanted = {"codebook_version": codebook.version, "model_version": 1, "lora_rank": 0}
    for key, value in wanted.items():
        if config.get(key) != value:
            return f"{key} is {config.get(key)!r}; {value} is read"
    for key in ("outlier_channel_split", "pack_out"):
        if config.get(key):
            return f"{key} is set"
    scale = config.get("resid_scale_override", -1)
    if not isinstance(scale, int | float):
        return f"resid_scale_override is {scale!r}; a number is read"
    return None


def integers(config: Mapping[str, Any]) -> Integers | None:
    """There are none: its codes number points of a lattice."""
    return None


def shape(parts: Shapes, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Outputs and inputs of a layer, of several where they are fused."""
    outputs, words = parts["Qidxs"]
    return outputs, words * 64 // _CODEBOOKS[config["codebook"]].bits


def layers_in(layer: str, parts: Shapes, shape: tuple[int, ...]) -> Mapping[str, int]:
    """Of a stored layer, the model's layers that lie in it, by their names, and their outputs.

    Raises:
        ValueError: It has not as many scales as layers.
        KeyError: It has none.
    """
    last = layer.rpartition(".")[2]
    names = _FUSED.get(last)
    if names is None:
        return {layer: shape[0]}
    if parts["fuse_scales"] != (len(names),):
        raise ValueError(f"fuse_scales are {parts['fuse_scales']}; {len(names)} are expected")
    block = layer.removesuffix(last)
    return dict(zip((block + name for name in names), _fused(len(names), shape), strict=True))


def read(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Tensor:
    """Read a layer: SV × H codes Hᵀ × SU, with the scales that the parts and the config tell.

    ``Qidxs`` is int64 (outputs, words of 64 bits), in which the residual's codes follow the others
    of a row; ``SU`` (inputs,), ``SV`` (outputs,), ``scaleWH`` (inputs,) where the config has
    ``rescale_WH``, ``Wscale`` one number, ``fuse_scales`` one for each of the layers.

    The library rounds to float16 between its steps; that is left out.

    Raises:
        ValueError: Parts do not go together, or one is of a kind that is not read.
    """
    import torch

    from serving.quantized_checkpoints.hadamard import transform_columns, transform_rows

    codebook, words = _CODEBOOKS[config["codebook"]], tensors["Qidxs"]
    outputs, inputs = size = shape({"Qidxs": tuple(words.shape)}, config)
    _check(tensors, codebook, size)
    by_input, by_output = tensors["SU"].double(), tensors["SV"].double() * tensors["Wscale"]
    if config.get("rescale_WH"):
        by_input /= tensors["scaleWH"]
    if "fuse_scales" in tensors:
        scales = tensors["fuse_scales"]
        by_output *= scales.repeat_interleave(torch.tensor(_fused(len(scales), size)))
    override = config.get("resid_scale_override", -1)
    weight = _points(words, codebook, override if override > 0 else codebook.residual_scale)
    transform_rows(weight)
    transform_columns(weight)
    weight *= (by_output / outputs**0.5).float().unsqueeze(1)
    weight *= (by_input / inputs**0.5).float()
    return weight


def _points(words: Tensor, codebook: _Codebook, residual_scale: float) -> Tensor:
    from serving.quantized_checkpoints.e8_codebooks import read_e8p, read_e81b

    first = words.shape[1] * 2 // codebook.bits
    weight = read_e8p(words[:, :first])
    if codebook.bits > 2:
        read_residual = read_e81b if codebook.bits == 3 else read_e8p
        weight += read_residual(words[:, first:]).div_(residual_scale)
    return weight


def _check(tensors: Mapping[str, Tensor], codebook: _Codebook, size: tuple[int, ...]) -> None:
    import torch

    outputs, inputs = size
    if found := [name for name in _UNREAD if name in tensors]:
        raise ValueError(f"{', '.join(found)} is not read")
    if int(tensors["codebook_id"]) != codebook.number:
        raise ValueError(f"codebook_id is {tensors['codebook_id']}; expected {codebook.number}")
    words = tensors["Qidxs"]
    if words.dtype != torch.int64:
        raise ValueError(f"Qidxs are {words.dtype}; expected torch.int64")
    if outputs % 16 or inputs % 64 or words.shape[1] % codebook.bits:
        raise ValueError(f"Qidxs are {tuple(words.shape)}; no blocks of 16 outputs and 64 inputs")
    expected = {"SU": (inputs,), "SV": (outputs,), "scaleWH": (inputs,), "Wscale": ()}
    for name, wanted in expected.items():
        if name in tensors and tensors[name].shape != wanted:
            raise ValueError(f"{name} is {tuple(tensors[name].shape)}; expected {wanted}")


def _fused(layers: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Outputs of each of the layers that are one: all alike, or as many queries as inputs."""
    outputs, inputs = shape
    rest = outputs - inputs if layers == 3 else outputs
    if layers not in (2, 3) or rest <= 0 or rest % 2:
        raise ValueError(f"{outputs} outputs of {inputs} inputs are not {layers} layers")
    return (inputs, rest // 2, rest // 2) if layers == 3 else (rest // 2, rest // 2)


FORM = QuantizedForm(
    marks=("Qidxs",),
    parts=(
        *("Qidxs", "codebook_id", "SU", "SV", "Wscale", "fuse_scales", "scaleWH"),
        *_UNREAD,
    ),
    why_not=why_not,
    integers=integers,
    shape=shape,
    read=read,
    layers_in=layers_in,
)
