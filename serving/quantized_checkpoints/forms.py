"""The forms that are read, by ``quant_method`` of ``quantization_config``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from serving.checkpoint_json import QUANTO_MAP
from serving.quantized_checkpoints import (
    aqlm,
    awq,
    bitsandbytes,
    compressed_tensors,
    fp8,
    gptq,
    hqq,
    quanto,
    quip_sharp,
    torchao,
)
from serving.quantized_checkpoints.form import Integers, QuantizedForm

FORMS: dict[str, QuantizedForm] = {
    "gptq": gptq.FORM,
    "awq": awq.FORM,
    "compressed-tensors": compressed_tensors.FORM,
    "fp8": fp8.FORM,
    "bitsandbytes": bitsandbytes.FORM,
    "hqq": hqq.FORM,
    "aqlm": aqlm.FORM,
    "quip-sharp": quip_sharp.FORM,
    "quanto": quanto.FORM,
    "torchao": torchao.FORM,
}


QUANTO_MARK = ".weight._scale"
"""Ending of a tensor that optimum-quanto writes, beside a ``config.json`` that says nothing."""


def form_of(config: Mapping[str, Any]) -> tuple[QuantizedForm, Mapping[str, Any]] | None:
    """The form of a checkpoint and its ``quantization_config``; None if it is not quantized.

    Args:
        config: Its ``config.json``, of a form that is read: see ``why_not_read``.
    """
    said = config.get("quantization_config")
    return None if said is None else (FORMS[_method(said)], said)


def why_not_read(config: Mapping[str, Any], names: Iterable[str] = ()) -> str | None:
    """Why a checkpoint of this ``config.json`` cannot be read; None if it can.

    Args:
        config: What it says of itself.
        names: Of its tensors, which tell where the configuration is silent.

    Raises:
        Exception: Whatever a value leads its form to that is never what it is here.
    """
    said = config.get("quantization_config")
    if said is None:
        if any(name.endswith(QUANTO_MARK) for name in names):
            return f"it is quantized by 'quanto', whose {QUANTO_MAP} is missing"
        return None
    method = _method(said)
    if method not in FORMS:
        return _not_among_forms(method)
    reason = FORMS[method].why_not(said)
    if reason is None:
        FORMS[method].integers(said)  # raises here, where it is told, what it would raise later
        return None
    return f"it is quantized by {method!r}, but {reason}"


def integers_of(config: Mapping[str, Any]) -> Integers:
    """What a checkpoint that ``why_not_kept`` has nothing against says of its integers."""
    found = form_of(config)
    assert found is not None
    form, said = found
    integers = form.integers(said)
    assert integers is not None
    return integers


def _not_among_forms(method: str) -> str:
    return (
        f"it is quantized by {method!r}, which is not read; these are: {', '.join(FORMS)}. "
        "Name the checkpoint that it was made from"
    )


def why_not_kept(config: Mapping[str, Any], widths: Collection[int]) -> str | None:
    """Why the integers of a checkpoint cannot be kept as they are; None if they can.

    Args:
        config: Its ``config.json``, of a form that is read.
        widths: Bits of the integers that whoever asks can keep.
    """
    found = form_of(config)
    if found is None:
        return "this checkpoint is not quantized: its config.json has no quantization_config"
    form, said = found
    integers, kept = form.integers(said), " and ".join(map(str, widths))
    if integers is None:
        return f"the weights of this checkpoint, of {_method(said)!r}, are no integers with scales"
    if others := sorted(integers.bits - {*widths}):
        return (
            f"this checkpoint has integers of {', '.join(map(str, others))} bits; {kept} are kept"
        )
    return None


def _method(config: Mapping[str, Any]) -> str:
    # Older configurations of bitsandbytes name no method.
    if config.get("load_in_8bit") or config.get("load_in_4bit"):
        return "bitsandbytes"
    return str(config.get("quant_method"))
