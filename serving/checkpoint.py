"""Finds a model's source and reads what can be known of it without loading its weights."""

from __future__ import annotations

import json
import re
from pathlib import Path

from serving.errors import ConfigError, SourceError
from serving.package_files import PREFIX, find_in_package
from serving.seams import Checkpoint, WeightShape

_HUB_ID = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+)$")
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


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
    """Name and shape of every tensor, read from the files' headers alone.

    Raises:
        SourceError: A file is damaged.
    """
    pattern = checkpoint.gguf_file or "*.safetensors"
    read = _gguf_shapes if checkpoint.gguf_file else _safetensors_shapes
    shapes = []
    for file in sorted(checkpoint.folder.glob(pattern)):
        try:
            shapes += read(file)
        except Exception as error:  # safetensors and gguf raise whatever the bytes lead them to
            raise SourceError(f"{file}: cannot be read as weights: {error}") from error
    return shapes


def position_limit(checkpoint: Checkpoint) -> int | None:
    """Tokens that the model has positions for, if a ``config.json`` says so.

    Raises:
        SourceError: The file is damaged.
    """
    if checkpoint.gguf_file is not None:
        return None
    file = checkpoint.folder / "config.json"
    try:
        limit: int | None = json.loads(file.read_text("utf-8")).get("max_position_embeddings")
    except (OSError, ValueError) as error:
        raise SourceError(f"{file}: cannot be read: {error}") from None
    return limit


def _checked_folder(model: str, source: str, folder: Path, trust_remote_code: bool) -> Checkpoint:
    where = f"model {model!r}: source {source!r}"
    if not folder.is_dir():
        raise SourceError(f"{where}: no folder {folder}")
    if not (folder / "config.json").is_file():
        raise SourceError(f"{where}: no config.json in {folder}")
    if not any(folder.glob("*.safetensors")):
        others = sorted(file.name for file in folder.iterdir() if file.suffix in (".bin", ".pt"))
        hint = f"; it holds {', '.join(others)}, which is not loaded" if others else ""
        raise SourceError(f"{where}: no *.safetensors in {folder}{hint}")
    return Checkpoint(folder, None, trust_remote_code)


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
    from huggingface_hub import snapshot_download

    files = [*_HUB_FILES, "*.py"] if trust_remote_code else _HUB_FILES
    try:
        folder = snapshot_download(match["repo"], revision=match["revision"], allow_patterns=files)
    except Exception as error:  # the hub client raises a dozen unrelated types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SourceError(f"{where}: cannot be fetched from the hub: {reason}") from error
    return Path(folder)


def _safetensors_shapes(file: Path) -> list[WeightShape]:
    from safetensors import safe_open

    with safe_open(file, framework="np") as tensors:
        return [
            _weight_shape(name, tuple(tensors.get_slice(name).get_shape()))
            for name in tensors.keys()  # noqa: SIM118 (safe_open is no mapping)
        ]


def _gguf_shapes(file: Path) -> list[WeightShape]:
    from gguf import GGUFReader

    # GGUF lists dimensions innermost first.
    return [
        _weight_shape(tensor.name, tuple(int(d) for d in reversed(tensor.shape)))
        for tensor in GGUFReader(file).tensors
    ]


def _weight_shape(name: str, shape: tuple[int, ...]) -> WeightShape:
    is_embedding = len(shape) == 2 and ("embed" in name.lower() or "token_embd" in name)
    return WeightShape(name, shape, is_embedding)
