"""Make the transformers model of a checkpoint, or its empty form from a configuration alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from serving.checkpoint import weight_files
from serving.errors import SourceError
from serving.runtimes.torch.lean_transformers import no_init_weights, transformers
from serving.seams import Checkpoint

REASON_CHARACTERS = 200
"""Most of transformers' own words that are repeated; it lists every model that it knows."""


def load_pretrained(checkpoint: Checkpoint, auto_class: str, dtype: torch.dtype) -> nn.Module:
    """Build the transformers model of a checkpoint on the CPU, ready for inference.

    Args:
        checkpoint: The source that was found.
        auto_class: Name of the transformers Auto class, e.g. ``AutoModel``.
        dtype: Type of its parameters.

    Raises:
        SourceError: The checkpoint lacks weights that the task needs, or has some of another shape,
            that are no numbers, or that belong to a layer of the model which has no place for them;
            or it is no such model. Names the tensors.
    """
    form: dict[str, Any] = (
        {"gguf_file": checkpoint.gguf_file} if checkpoint.gguf_file else {"use_safetensors": True}
    )
    try:
        model, report = getattr(transformers, auto_class).from_pretrained(
            checkpoint.folder,
            dtype=dtype,
            trust_remote_code=checkpoint.trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told below, by name
            **form,
        )
    except ValueError as error:  # above all: no such class for this type of model
        reason = shorten(str(error), REASON_CHARACTERS, placeholder=" …")
        raise SourceError(f"{checkpoint.folder}: {auto_class} cannot load it: {reason}") from error
    missing = sorted(report["missing_keys"])
    if auto_class == "AutoModel":
        # Bare models may come without a pooler; no embedding uses it.
        missing = [name for name in missing if "pooler" not in name]
    if missing:
        raise SourceError(
            f"{checkpoint.folder}: no weights for {_some(missing)}, which {auto_class} needs"
        )
    _refuse_damage(checkpoint, model, report["mismatched_keys"])
    if lost := _without_zero_biases(checkpoint, _lost(model, report["unexpected_keys"])):
        raise SourceError(
            f"{checkpoint.folder}: {auto_class} has no place for {_some(lost)}, in layers that it "
            "has: without them its answers would be others. Is config.json that of these weights?"
        )
    model.eval().requires_grad_(False)
    assert isinstance(model, nn.Module)
    return model


def _refuse_damage(checkpoint: Checkpoint, model: nn.Module, mismatched: Any) -> None:
    others = [
        f"{name} is {_shape(found)} where config.json asks for {_shape(wanted)}"
        for name, found, wanted in sorted(mismatched)
    ]
    if others:
        raise SourceError(f"{checkpoint.folder}: weights of another shape: {_some(others)}")
    bad = [name for name, values in model.named_parameters() if not values.isfinite().all()]
    if bad:
        raise SourceError(
            f"{checkpoint.folder}: weights that are NaN or infinite, in {_some(bad)}: the "
            "checkpoint is damaged, or was saved in a type that its numbers do not fit"
        )


def _lost(model: nn.Module, unexpected: Iterable[str]) -> list[str]:
    """Tensors that lie inside a layer of the model, and that it would do without.

    Those of other parts are of another task: a model without its head is what is asked for.
    """
    names = [
        name
        for name, module in model.named_modules()
        if name and not any(module.children()) and any(True for _ in module.parameters())
    ]
    # A checkpoint of the model with a head, or of the model without, has names of its own.
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    layers = {
        *names,
        *(prefix + name for name in names),
        *(name.removeprefix(prefix) for name in names),
    }
    return sorted(
        key
        for key in unexpected
        if any(key[:dot] in layers for dot, character in enumerate(key) if character == ".")
    )


def _without_zero_biases(checkpoint: Checkpoint, names: Sequence[str]) -> list[str]:
    """Names without biases that add nothing: AutoGPTQ writes one for each layer that has none."""
    zeros = set()
    for file in weight_files(checkpoint) if names and checkpoint.gguf_file is None else []:
        with safe_open(file, "pt") as tensors:
            held = {name for name in names if name.endswith(".bias")} & set(tensors.keys())
            zeros |= {name for name in held if not tensors.get_tensor(name).any()}
    return [name for name in names if name not in zeros]


def _shape(size: Iterable[int]) -> str:
    return "×".join(map(str, size))


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''}"


def write_configuration(model: nn.Module, checkpoint: Checkpoint, folder: Path) -> None:
    """Write what ``empty_model`` needs; where the checkpoint brings code, its files as well."""
    config: Any = model.config
    if hasattr(config, "quantization_config"):
        # The numbers are expanded by now; GGUF files above all leave this behind.
        del config.quantization_config
    config.save_pretrained(folder)
    if checkpoint.trust_remote_code:
        for file in sorted(checkpoint.folder.glob("*.py")):
            shutil.copy2(file, folder)


def shapes_of_architecture(folder: Path, trust_remote_code: bool) -> dict[str, torch.Size]:
    """Shapes of all tensors of the model that a ``config.json`` names first, by their names.

    Raises:
        SourceError: It names none that transformers has.
    """
    config = transformers.AutoConfig.from_pretrained(
        folder, local_files_only=True, trust_remote_code=trust_remote_code
    )
    names = config.architectures or []
    architecture = getattr(transformers, names[0], None) if names else None
    if not (isinstance(architecture, type) and issubclass(architecture, nn.Module)):
        raise SourceError(
            f"the shapes of its layers cannot be told: architectures is {names}; expected a class "
            "of transformers"
        )
    with torch.device("meta"), no_init_weights():
        model = architecture(config)
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def empty_model(folder: Path, auto_class: str) -> nn.Module:
    """Build a model from its configuration on the meta device: modules, and no numbers.

    Python code beside the configuration runs: ``write_configuration`` put it there only where the
    operator trusts it.
    """
    has_code = any(folder.glob("*.py"))
    config = transformers.AutoConfig.from_pretrained(
        folder, local_files_only=True, trust_remote_code=has_code
    )
    with torch.device("meta"), no_init_weights():
        model = getattr(transformers, auto_class).from_config(config, trust_remote_code=has_code)
    model.eval().requires_grad_(False)
    assert isinstance(model, nn.Module)
    return model
