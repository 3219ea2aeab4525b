"""Finds a model's source and reads what can be known of it without loading its weights."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from serving.errors import ConfigError, SourceError
from serving.hub import WEIGHTS, WEIGHTS_INDEX, fetch_from_hub, what_it_holds
from serving.package_files import PREFIX, find_in_package
from serving.seams import Checkpoint, WeightShape

_HUB_ID = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+)$")

_OTHER_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "additional_chat_templates/*.jinja")
"""What is read of a folder beside the weights: configuration, tokenizer, chat templates."""


def find_checkpoint(model: str, source: str, trust_remote_code: bool = False) -> Checkpoint:
    """Find ``source``, fetching it from the hub if it is a hub id.

    Args:
        model: The model's public name, for messages.
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
            raise SourceError(f"model {model!r}: source {source!r}: no GGUF file {path}")
        return Checkpoint(path.parent, path.name, trust_remote_code)
    return _checked_folder(model, source, path, trust_remote_code)


def weight_shapes(checkpoint: Checkpoint) -> list[WeightShape]:
    """Name, shape and type of every tensor, read from the files' headers alone.

    Raises:
        SourceError: A file is damaged.
    """
    read = _gguf_shapes if checkpoint.gguf_file else _safetensors_shapes
    shapes = []
    for file in weight_files(checkpoint):
        try:
            shapes += read(file)
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
    try:
        names = sorted(set(_read_json(index)["weight_map"].values()))
    except (KeyError, AttributeError, TypeError) as error:
        raise SourceError(f"{index}: no weight_map that names files: {error!r}") from None
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
    """What a checkpoint says of itself: its ``config.json``; of GGUF only ``model_type``.

    Raises:
        SourceError: The file is damaged.
    """
    if checkpoint.gguf_file is None:
        return _read_json(checkpoint.folder / "config.json")
    return {"model_type": _gguf_architecture(checkpoint.folder / checkpoint.gguf_file)}


def _checked_folder(model: str, source: str, folder: Path, trust_remote_code: bool) -> Checkpoint:
    where = f"model {model!r}: source {source!r}"
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
    try:
        modules = json.loads(file.read_text("utf-8"))
        return [folder / module["path"] for module in modules if module["path"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{file}: cannot be read: {error!r}") from None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{file}: cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise SourceError(f"{file}: expected an object")
    return content


def _find_in_package(model: str, source: str) -> Path:
    try:
        return find_in_package(source)
    except ConfigError as error:
        raise SourceError(f"model {model!r}: source {source!r}: {error}") from None


def _fetch_from_hub(model: str, source: str, trust_remote_code: bool) -> Path:
    where = f"model {model!r}: source {source!r}"
    match = _HUB_ID.match(source.removeprefix("hf:"))
    if match is None:
        raise SourceError(f"{where}: expected hf:org/name@revision (a commit, tag or branch)")
    return fetch_from_hub(where, match["repo"], match["revision"], trust_remote_code)


def _safetensors_shapes(file: Path) -> list[WeightShape]:
    from safetensors import safe_open

    with safe_open(file, framework="np") as tensors:
        slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 (safe_open is no mapping)
        return [
            _weight_shape(name, tuple(part.get_shape()), part.get_dtype())
            for name, part in slices.items()
        ]


def _gguf_shapes(file: Path) -> list[WeightShape]:
    from gguf import GGUFReader

    # GGUF lists dimensions innermost first.
    return [
        _weight_shape(
            tensor.name, tuple(int(d) for d in reversed(tensor.shape)), tensor.tensor_type.name
        )
        for tensor in GGUFReader(file).tensors
    ]


def _gguf_architecture(file: Path) -> str:
    from gguf import GGUFReader

    try:
        field = GGUFReader(file).fields["general.architecture"]
        return str(field.contents())
    except Exception as error:  # gguf raises whatever the bytes lead it to
        raise SourceError(f"{file}: cannot be read as GGUF: {error!r}") from error


def _weight_shape(name: str, shape: tuple[int, ...], dtype: str) -> WeightShape:
    is_embedding = len(shape) == 2 and ("embed" in name.lower() or "token_embd" in name)
    return WeightShape(name, shape, is_embedding, dtype)
