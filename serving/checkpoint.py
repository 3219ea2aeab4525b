"""Finds a model's source and reads what can be known of it without loading its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from serving.checkpoint_json import check_config, read_config_of, read_json_file
from serving.errors import ConfigError, SourceError
from serving.gguf_header import read_gguf_header
from serving.hub import WEIGHTS, WEIGHTS_INDEX, fetch_from_hub, read_headers_on_hub, what_it_holds
from serving.package_files import PREFIX, find_in_package
from serving.quantized_checkpoints import shapes_of_model, unread_part, why_not_read
from serving.quantized_checkpoints.form import is_table
from serving.seams import Checkpoint, CheckpointFormat, WeightShape

_HUB_ID = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+)$")

_OTHER_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "additional_chat_templates/*.jinja")
"""What is read of a folder beside the weights: configuration, tokenizer, chat templates."""

_GGUF_KEYS = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length",
}
"""Keys of a GGUF file, without its architecture, by their names in ``config.json``."""


_INTEGERS = frozenset({"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"})
"""Types of tensors that are no weights, such as positions, as safetensors files name them."""

_COMPUTED = ("masked_bias", "inv_freq")
"""Last names of tensors that older versions of transformers wrote, and that all compute anew."""


@dataclass(frozen=True, slots=True)
class SourceHeaders:
    """What a source says of itself, its weights unread.

    Attributes:
        format: How its weights are written.
        config: As of ``read_config``.
        shapes: As of ``weight_shapes``, without what is no weight; of a quantized checkpoint those
            of the model that it was made from.
    """

    format: CheckpointFormat
    config: Mapping[str, Any]
    shapes: Sequence[WeightShape]


def look_at(source: str) -> SourceHeaders:
    """Read the headers of a source; of one on the hub, without fetching its weights.

    Args:
        source: As of ``find_checkpoint``.

    Raises:
        SourceError: Nothing is there, it is damaged, or quantized in a form that is not read.
    """
    if not source.startswith("hf:"):
        return read_headers(find_checkpoint(None, source))
    where, repo, revision = hub_place(_where(None, source), source)
    config, tensors = read_headers_on_hub(where, repo, revision)
    shapes = [_weight_shape(*one) for one in tensors]
    return _headers("safetensors", config, {f"{source}: {WEIGHTS}": shapes})


def read_headers(checkpoint: Checkpoint) -> SourceHeaders:
    """Read a checkpoint's small files, and the headers of its weights.

    Raises:
        SourceError: It is damaged, or quantized in a form that is not read.
    """
    return _headers(checkpoint.format, read_config(checkpoint), _shapes_by_file(checkpoint))


def _headers(
    form: CheckpointFormat,
    config: Mapping[str, Any],
    shapes_by_file: Mapping[str, Sequence[WeightShape]],
) -> SourceHeaders:
    shapes = [shape for of_file in shapes_by_file.values() for shape in of_file]
    try:
        reason = why_not_read(config, (shape.name for shape in shapes))
        unread = None if reason or form != "safetensors" else unread_part(shapes, config)
        made_from = [] if reason or unread else shapes_of_model(shapes, config)
    except Exception as error:  # whatever the values of a quantization_config lead its form to
        raise SourceError(f"its quantization_config cannot be read: {error!r}") from error
    if reason is not None:
        raise SourceError(reason)
    if unread is not None:
        file = next(file for file, of_file in shapes_by_file.items() if unread in of_file)
        raise SourceError(
            f"{file}: {unread.name}: part of a quantized layer that is not read. Name the "
            "checkpoint that it was made from"
        )
    return SourceHeaders(form, config, [shape for shape in made_from if _is_weight(shape)])


def find_checkpoint(model: str | None, source: str, trust_remote_code: bool = False) -> Checkpoint:
    """Find ``source``, fetching it from the hub if it is a hub id.

    Args:
        model: The model's public name, for messages; None if it has none.
        source: ``hf:org/name@revision``, ``package:import_name/path``, a folder or a GGUF file.
        trust_remote_code: Whether the config allows Python code that comes with the checkpoint.

    Raises:
        SourceError: Nothing is there, or its weights are neither safetensors nor GGUF.
    """
    if source.startswith("hf:"):
        path = _fetch_from_hub(model, source, trust_remote_code)
    elif source.startswith(PREFIX):
        path = _find_in_package(model, source)
    else:
        path = Path(source).expanduser().resolve()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise SourceError(f"{_where(model, source)}: no GGUF file {path}")
        return Checkpoint(path.parent, path.name, trust_remote_code)
    return _checked_folder(model, source, path, trust_remote_code)


def weight_shapes(checkpoint: Checkpoint) -> list[WeightShape]:
    """Name, shape and type of every tensor, read from the files' headers alone.

    Raises:
        SourceError: A file is damaged.
    """
    return [shape for of_file in _shapes_by_file(checkpoint).values() for shape in of_file]


def _shapes_by_file(checkpoint: Checkpoint) -> dict[str, list[WeightShape]]:
    read = _gguf_shapes if checkpoint.gguf_file else _safetensors_shapes
    shapes = {}
    for file in weight_files(checkpoint):
        try:
            shapes[str(file)] = read(file)
        except Exception as error:  # safetensors and gguf raise whatever the bytes lead them to
            raise SourceError(f"{file}: cannot be read as weights: {error}") from error
    return shapes


def weight_files(checkpoint: Checkpoint) -> list[Path]:
    """The files that hold the weights, and no other copy of them that lies in the same folder.

    Raises:
        SourceError: The index of the files is damaged, or one of them is missing.
    """
    if checkpoint.gguf_file is not None:
        return [checkpoint.folder / checkpoint.gguf_file]
    index = checkpoint.folder / WEIGHTS_INDEX
    if (checkpoint.folder / WEIGHTS).is_file() or not index.is_file():
        return [checkpoint.folder / WEIGHTS]
    content = read_json_file(index)
    if not isinstance(content, dict):
        raise SourceError(f"{index}: expected an object")
    try:
        names = sorted(set(content["weight_map"].values()))
    except (KeyError, AttributeError, TypeError) as error:
        raise SourceError(f"{index}: no weight_map that names files: {error!r}") from None
    for name in names:
        if not isinstance(name, str) or not _is_within(name):
            raise SourceError(f"{index}: {name!r} names no file of its folder")
    files = [checkpoint.folder / name for name in names]
    if missing := [file.name for file in files if not file.is_file()]:
        raise SourceError(f"{index}: names files that are missing: {', '.join(missing)}")
    return files


def source_files(checkpoint: Checkpoint) -> list[Path]:
    """Every file that decides what a variant of the checkpoint answers.

    Raises:
        SourceError: As of ``weight_files``, or ``modules.json`` is damaged.
    """
    if checkpoint.gguf_file is not None:
        return weight_files(checkpoint)
    files = {*weight_files(checkpoint)}
    for pattern in (*_OTHER_FILES, *(["*.py"] if checkpoint.trust_remote_code else [])):
        files.update(checkpoint.folder.glob(pattern))
    for folder in _module_folders(checkpoint.folder):
        for pattern in (WEIGHTS, *_OTHER_FILES):
            files.update(folder.glob(pattern))
    return sorted(files)


def read_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint says of itself, as of ``read_config_of``; of GGUF the same in its names.

    Raises:
        SourceError: The file is damaged.
    """
    if checkpoint.gguf_file is None:
        return read_config_of(checkpoint.folder)
    return _gguf_config(checkpoint.folder / checkpoint.gguf_file)


def _checked_folder(
    model: str | None, source: str, folder: Path, trust_remote_code: bool
) -> Checkpoint:
    where = _where(model, source)
    if not folder.is_dir():
        raise SourceError(f"{where}: no folder {folder}")
    if not (folder / "config.json").is_file():
        raise SourceError(f"{where}: no config.json in {folder}")
    if not any((folder / name).is_file() for name in (WEIGHTS, WEIGHTS_INDEX)):
        kinds = (".bin", ".pt", ".safetensors")
        others = sorted(file.name for file in folder.iterdir() if file.suffix in kinds)
        if (match := _HUB_ID.match(source.removeprefix("hf:"))) and source.startswith("hf:"):
            others = what_it_holds(match["repo"], match["revision"])
        hint = f"; it holds {', '.join(others)}, which is not loaded" if others else ""
        raise SourceError(f"{where}: no {WEIGHTS} in {folder}, nor {WEIGHTS_INDEX}{hint}")
    return Checkpoint(folder, None, trust_remote_code)


def _module_folders(folder: Path) -> list[Path]:
    """Subfolders that the modules of a sentence-transformers model have."""
    file = folder / "modules.json"
    if not file.is_file():
        return []
    modules = read_json_file(file)
    try:
        paths = [module["path"] for module in modules if module["path"]]
    except (KeyError, TypeError) as error:
        raise SourceError(f"{file}: cannot be read: {error!r}") from None
    for path in paths:
        if not isinstance(path, str) or not _is_within(path):
            raise SourceError(f"{file}: {path!r} names no folder inside the checkpoint's")
    return [folder / path for path in paths]


def _is_within(name: str) -> bool:
    """Whether a path that a checkpoint names stays within its own folder."""
    path = PurePath(name)
    return "\0" not in name and not path.is_absolute() and ".." not in path.parts


def _where(model: str | None, source: str) -> str:
    return f"source {source!r}" if model is None else f"model {model!r}: source {source!r}"


def _find_in_package(model: str | None, source: str) -> Path:
    try:
        return find_in_package(source)
    except ConfigError as error:
        raise SourceError(f"{_where(model, source)}: {error}") from None


def _fetch_from_hub(model: str | None, source: str, trust_remote_code: bool) -> Path:
    return fetch_from_hub(*hub_place(_where(model, source), source), trust_remote_code)


def hub_place(where: str, source: str) -> tuple[str, str, str]:
    """How messages call a source on the hub, its repository and its revision.

    Raises:
        SourceError: It names no revision, or is no hub id.
    """
    match = _HUB_ID.match(source.removeprefix("hf:"))
    if match is None:
        raise SourceError(f"{where}: expected hf:org/name@revision (a commit, tag or branch)")
    return where, match["repo"], match["revision"]


def _safetensors_shapes(file: Path) -> list[WeightShape]:
    from safetensors import safe_open

    with safe_open(file, framework="np") as tensors:
        slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 (safe_open is no mapping)
        return [
            _weight_shape(name, tuple(part.get_shape()), part.get_dtype())
            for name, part in slices.items()
        ]


def _gguf_shapes(file: Path) -> list[WeightShape]:
    return [_weight_shape(one.name, one.shape, one.type) for one in read_gguf_header(file).tensors]


def _gguf_config(file: Path) -> dict[str, Any]:
    try:
        values = read_gguf_header(file).values
    except (OSError, ValueError) as error:
        raise SourceError(f"{file}: cannot be read as GGUF: {error}") from error
    architecture = values.get("general.architecture")
    if not isinstance(architecture, str):
        raise SourceError(f"{file}: cannot be read as GGUF: general.architecture names no model")
    known = {
        name: values[f"{architecture}.{key}"]
        for name, key in _GGUF_KEYS.items()
        if f"{architecture}.{key}" in values
    }
    config = {"model_type": architecture, **known}
    check_config(file, config)
    return config


def _weight_shape(name: str, shape: tuple[int, ...], dtype: str) -> WeightShape:
    is_embedding = len(shape) == 2 and is_table(name.removesuffix(".weight"))
    return WeightShape(name, shape, is_embedding, dtype)


def _is_weight(shape: WeightShape) -> bool:
    """Whether a model has such a tensor, and not just a file: attention's masks lie in old ones."""
    is_mask = len(shape.shape) == 4 and shape.shape[:2] == (1, 1) and len({*shape.shape[2:]}) == 1
    is_computed = shape.name.rpartition(".")[2] in _COMPUTED
    return not is_mask and not is_computed and shape.dtype not in _INTEGERS
