"""Reading a checkpoint's small files, where tasks are prepared and before."""

from __future__ import annotations

from typing import Any

from serving.checkpoint_json import read_json_file
from serving.errors import ConfigError
from serving.seams import Checkpoint


def load_model_config(checkpoint: Checkpoint) -> Any:
    """Read a checkpoint's transformers config.

    Raises:
        ConfigError: transformers cannot make a config of it; names the folder.
    """
    # Only the files themselves are read where a configuration is checked.
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(checkpoint.folder, **source_arguments(checkpoint))
    except Exception as error:  # whatever the file's values lead transformers to
        raise ConfigError(
            f"{checkpoint.folder}: the model's config cannot be read: {error}"
        ) from error


def read_json(checkpoint: Checkpoint, name: str) -> Any:
    """Read an optional JSON file of a checkpoint; an absent one is an empty dictionary.

    Raises:
        ConfigError: It cannot be read; names it.
    """
    file = checkpoint.folder / name
    if not file.is_file():
        return {}
    return read_json_file(file)


def source_arguments(checkpoint: Checkpoint) -> dict[str, Any]:
    """What every ``from_pretrained`` takes beside the folder; nothing is fetched."""
    arguments: dict[str, Any] = {
        "local_files_only": True,
        "trust_remote_code": checkpoint.trust_remote_code,
    }
    if checkpoint.gguf_file is not None:
        arguments["gguf_file"] = checkpoint.gguf_file
    return arguments
