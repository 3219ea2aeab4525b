"""Reads the JSON files of a checkpoint, which somebody else has written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.errors import SourceError

LARGEST_NUMBER = 2**31 - 1
"""Of layers, heads, positions and the like."""

_NUMBERS = (
    *("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    *("num_attention_heads", "n_head", "num_heads", "n_heads"),
    *("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    *("hidden_size", "n_embd", "d_model", "head_dim", "d_kv", "intermediate_size", "vocab_size"),
    *("max_position_embeddings", "n_positions", "sliding_window", "num_labels"),
)
"""What sizes are estimated from and limits taken from, before transformers has seen the file."""

QUANTO_MAP = "quanto_qmap.json"
"""Where optimum-quanto says which layers it quantized; ``config.json`` says nothing of it."""

QUIP_PARAMS = "quip_params"
"""Where QuIP# says in ``config.json`` how it quantized, and in no ``quantization_config``."""

_OBJECTS = (
    *("text_config", "quantization_config", "sentence_transformers", "auto_map"),
    QUIP_PARAMS,
)


def read_json_file(file: Path) -> Any:
    """Read a JSON file.

    Raises:
        SourceError: It cannot be read, is no JSON, or nested too deep; names the file.
    """
    try:
        return json.loads(file.read_text("utf-8"))
    except RecursionError:
        raise SourceError(f"{file}: cannot be read: it is nested too deep") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{file}: cannot be read: {error}") from None


def read_config_file(file: Path) -> dict[str, Any]:
    """Read a ``config.json``.

    Raises:
        SourceError: As of ``read_json_file``, or as of ``check_config``.
    """
    config = read_json_file(file)
    if not isinstance(config, dict):
        raise SourceError(f"{file}: expected an object")
    check_config(file, config)
    return config


def read_config_of(folder: Path) -> dict[str, Any]:
    """Read a folder's ``config.json``, with what is said elsewhere as ``quantization_config``.

    So do quanto's map and QuIP#'s parameters.

    Raises:
        SourceError: As of ``read_config_file``.
    """
    config, file = read_config_file(folder / "config.json"), folder / QUANTO_MAP
    if config.get("quantization_config") is not None:
        return config
    if config.get(QUIP_PARAMS) is not None:
        said = {**config[QUIP_PARAMS], "quant_method": "quip-sharp"}
        return {**config, "quantization_config": said}
    if not file.is_file():
        return config
    layers = read_json_file(file)
    if not isinstance(layers, dict) or not all(isinstance(one, dict) for one in layers.values()):
        raise SourceError(f"{file}: expected an object with one for each layer")
    return {**config, "quantization_config": {"quant_method": "quanto", "layers": layers}}


def check_config(where: object, config: Mapping[str, Any]) -> None:
    """Check the kinds and the bounds of what is read of a config before transformers has it.

    Args:
        where: Whose it is, for the message.
        config: A ``config.json``.

    Raises:
        SourceError: A key holds what it never does; names it, and what would be right.
    """
    for name in _OBJECTS:
        if not isinstance(config.get(name), dict | None):
            raise SourceError(f"{where}: {name} is {_short(config[name])}; expected an object")
    named = config.get("architectures")
    if not isinstance(named, list | None) or not all(isinstance(one, str) for one in named or []):
        raise SourceError(f"{where}: architectures is {_short(named)}; expected a list of names")
    if not isinstance(config.get("model_type"), str | None):
        kind = _short(config["model_type"])
        raise SourceError(f"{where}: model_type is {kind}; expected a name")
    for part in (config, config.get("text_config") or {}):
        for name in _NUMBERS:
            _check_number(where, name, part.get(name))


def _check_number(where: object, name: str, value: Any) -> None:
    # A GGUF file may have one for each layer.
    for number in value if isinstance(value, list) else [value]:
        if number is None:
            continue
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        # Some configs have -1 or 0 for "none", of windows above all.
        if not is_number or not -1 <= number <= LARGEST_NUMBER:
            raise SourceError(
                f"{where}: {name} is {_short(value)}; expected a number up to {LARGEST_NUMBER}"
            )


def _short(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= 80 else f"{said[:80]} …"
