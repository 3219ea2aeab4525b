"""Finds a LoRA adapter in PEFT's format, and reads what it changes of which tensors.

An adapter adds ``scale * B @ A`` to the weights of linear layers (arXiv:2106.09685), where A is
(rank, in) and B (out, rank), and may bring other tensors as a whole, such as a classifier's. What
else PEFT can write changes answers in ways that are not computed here, and is refused by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.checkpoint import hub_place
from serving.checkpoint_json import LARGEST_NUMBER, read_json_file
from serving.errors import ConfigError, SourceError
from serving.hub import download
from serving.package_files import PREFIX, find_in_package
from serving.seams import WeightShape

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_MODEL = "base_model.model."
"""What PEFT's names of tensors begin with."""

_FACTORS = (".lora_A.weight", ".lora_B.weight")

_SAID_BY_TENSORS = ("r", "target_modules", "rank_pattern", "modules_to_save")
_READ = ("lora_alpha", "alpha_pattern", "use_rslora", "fan_in_fan_out")
_OF_TRAINING = (
    *("peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "revision"),
    *("inference_mode", "exclude_modules", "lora_dropout", "layers_to_transform", "peft_version"),
    *("layers_pattern", "megatron_core", "qalora_group_size", "loftq_config", "eva_config"),
    *("corda_config", "ensure_weight_tying"),
)
_KNOWN = {*_SAID_BY_TENSORS, *_READ, *_OF_TRAINING, "bias", "init_lora_weights"}

_BEGINNINGS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Ways to begin that leave the base's weights as they are; the others change these, too."""

_NAME = re.compile(r"\^?[\w.-]+")
"""Of modules in ``alpha_pattern``, where PEFT takes any regular expression."""


@dataclass(frozen=True, slots=True)
class Update:
    """What an adapter adds to one weight: ``scale * B @ A``.

    Attributes:
        weight: Name of the tensor in the base's files.
        factors: Names of A and B in the adapter's file.
        scale: What the product is multiplied with.
        is_transposed: Whether the base stores the weight as (in, out).
        shape: (out, in).
        rank: Numbers between the factors.
    """

    weight: str
    factors: tuple[str, str]
    scale: float
    is_transposed: bool
    shape: tuple[int, int]
    rank: int


@dataclass(frozen=True, slots=True)
class AdapterChanges:
    """All that an adapter does to a base.

    Attributes:
        updates: Weights to which it adds.
        replaced: Tensors that it brings as a whole: their names in the base's files, and in its
            own.
    """

    updates: tuple[Update, ...]
    replaced: Mapping[str, str]


def find_adapter(source: str) -> Path:
    """Find an adapter's folder, fetching it from the hub if ``source`` is a hub id.

    Args:
        source: ``hf:org/name@revision``, ``package:import_name/path`` or a folder.

    Raises:
        SourceError: Nothing is there, or its weights are no safetensors.
    """
    where = f"adapter {source!r}"
    if source.startswith("hf:"):
        _, repo, revision = hub_place(where, source)
        folder = download(where, repo, revision, [SETTINGS, WEIGHTS])
    elif source.startswith(PREFIX):
        try:
            folder = find_in_package(source)
        except ConfigError as error:
            raise SourceError(f"{where}: {error}") from None
    else:
        folder = Path(source).expanduser().resolve()
    for name in (SETTINGS, WEIGHTS):
        if not (folder / name).is_file():
            raise SourceError(
                f"{where}: no {name} in {folder}; expected a folder as PEFT writes it, with "
                f"{SETTINGS} and {WEIGHTS}"
            )
    return folder


def adapter_files(folder: Path) -> list[Path]:
    """Every file of an adapter that decides what it changes."""
    return [folder / SETTINGS, folder / WEIGHTS]


def read_changes(folder: Path, base: Iterable[WeightShape]) -> AdapterChanges:
    """Read what an adapter changes of a base, from the headers of its file.

    Args:
        folder: Of the adapter.
        base: The base's tensors.

    Raises:
        SourceError: A file is damaged, the adapter is of a kind that is not read, or was not made
            for this base; names the key or the tensor.
    """
    settings = _read_settings(folder / SETTINGS)
    shapes = _read_shapes(folder / WEIGHTS)
    fitting = _Base(folder / WEIGHTS, base)
    modules = sorted(
        {name.removesuffix(end) for name in shapes for end in _FACTORS if name.endswith(end)}
    )
    updates = tuple(_update(module, settings, shapes, fitting, folder) for module in modules)
    factors = {name for update in updates for name in update.factors}
    others = sorted(shapes.keys() - factors)
    replaced = {fitting.replaced(name, shapes[name]): name for name in others}
    if not updates and not replaced:
        raise SourceError(f"{folder / WEIGHTS}: holds no tensor; expected some …{_FACTORS[0]}")
    return AdapterChanges(updates, replaced)


def _read_settings(file: Path) -> Mapping[str, Any]:
    settings = read_json_file(file)
    if not isinstance(settings, dict):
        raise SourceError(f"{file}: expected an object")
    if (reason := _why_not(settings)) is not None:
        raise SourceError(f"{file}: {reason}")
    return settings


def _why_not(settings: Mapping[str, Any]) -> str | None:
    """Why an adapter of these settings is not read; None if it is."""
    if (kind := settings.get("peft_type")) != "LORA":
        return f"peft_type is {kind!r}; LORA is read"
    if (bias := settings.get("bias", "none")) != "none":
        return f"bias is {bias!r}; none is read"
    if (begun := settings.get("init_lora_weights", True)) not in _BEGINNINGS:
        return (
            f"init_lora_weights is {begun!r}, for which the base may have been changed, too; save "
            "the adapter as a plain one, which PEFT converts such to"
        )
    # Whatever a later version adds is off where it says nothing.
    if others := sorted(key for key in settings.keys() - _KNOWN if settings[key]):
        return f"{', '.join(others)} is set, which is not read"
    alphas = [settings.get("lora_alpha"), *_pattern(settings, "alpha_pattern").values()]
    if not all(_is_number(alpha) for alpha in alphas):
        return "lora_alpha, and every value of alpha_pattern, has to be a number"
    if odd := [key for key in _pattern(settings, "alpha_pattern") if not _NAME.fullmatch(key)]:
        return f"alpha_pattern has the regular expression {odd[0]!r}; names of modules are read"
    return None


def _pattern(settings: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = settings.get(key)
    return value if isinstance(value, dict) else {}


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= LARGEST_NUMBER


def _read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import safe_open

    try:
        with safe_open(file, framework="np") as tensors:
            names = list(tensors.keys())
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in names}
    except Exception as error:  # safetensors raises whatever the bytes lead it to
        raise SourceError(f"{file}: cannot be read as weights: {error}") from error


def _update(
    module: str,
    settings: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]],
    base: _Base,
    folder: Path,
) -> Update:
    file, factors = folder / WEIGHTS, (f"{module}{_FACTORS[0]}", f"{module}{_FACTORS[1]}")
    if missing := [name for name in factors if name not in shapes]:
        raise SourceError(f"{file}: no {missing[0]} beside its other factor")
    first, second = (tuple(shapes[name]) for name in factors)
    if len(first) != 2 or len(second) != 2 or first[0] != second[1] or first[0] == 0:
        raise SourceError(
            f"{file}: the factors of {module} are {_by(first)} and {_by(second)}; expected "
            "rank×inputs and outputs×rank"
        )
    rank, shape = first[0], (second[0], first[1])
    alpha = _alpha(settings, module.removeprefix(_MODEL))
    is_transposed = bool(settings.get("fan_in_fan_out"))
    return Update(
        weight=base.adapted(module, shape[::-1] if is_transposed else shape),
        factors=factors,
        scale=alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank),
        is_transposed=is_transposed,
        shape=shape,
        rank=rank,
    )


def _alpha(settings: Mapping[str, Any], module: str) -> float:
    """Of a module: the first name in ``alpha_pattern`` that it is, or ends in, else the usual."""
    for name, alpha in _pattern(settings, "alpha_pattern").items():
        if module == name.removeprefix("^") or module.endswith(f".{name}"):
            return float(alpha)
    return float(settings["lora_alpha"])


class _Base:
    """The tensors of a base by the names that an adapter has for them.

    transformers puts the name of the model's body before those of its parts, or not, by what
    stands around the body; so one name may be the end of the other.
    """

    def __init__(self, file: Path, shapes: Iterable[WeightShape]) -> None:
        self._file, self._shapes = file, {shape.name: shape for shape in shapes}

    def adapted(self, module: str, shape: tuple[int, ...]) -> str:
        """Name of the weight of a module, of a shape."""
        return self._find(module, f"{module}.weight", shape)

    def replaced(self, name: str, shape: tuple[int, ...]) -> str:
        """Name of a tensor that is brought as a whole, of a shape."""
        found = self._find(name, name, shape)
        if self._shapes[found].is_embedding:
            raise SourceError(f"{self._file}: {name} replaces a table of embeddings: not read")
        return found

    def _find(self, what: str, name: str, shape: tuple[int, ...]) -> str:
        wanted = name.removeprefix(_MODEL)
        found = [wanted] if wanted in self._shapes else self._ending_alike(wanted)
        if len(found) != 1:
            raise SourceError(
                f"{self._file}: {what} changes {wanted}, of which the base has "
                f"{'several' if found else 'none'}: it was made for another model, or is of a kind "
                "that is not read"
            )
        base = self._shapes[found[0]]
        expected = base.shape
        if expected != shape and not (base.is_flat and math.prod(expected) == math.prod(shape)):
            raise SourceError(
                f"{self._file}: {what} is for {_by(shape)} where {found[0]} is {_by(expected)}: it "
                "was made for another model"
            )
        return found[0]

    def _ending_alike(self, wanted: str) -> list[str]:
        return [
            name
            for name in self._shapes
            if name.endswith(f".{wanted}") or wanted.endswith(f".{name}")
        ]


def _by(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
