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

OLDER_KEY = "compression_config"
"""Where older versions of compressed-tensors say it."""

_METHOD_OF_FILE = {"quantize_config.json": "gptq", "quant_config.json": "awq"}
"""Where AutoGPTQ, and early AutoAWQ, say it, and in ``config.json`` nothing."""

_SAYS_SO = ("quant_method", "bits", "w_bit")
"""One of these is in such a file; Transformers.js writes another of the same name, for ONNX."""

QUANTIZATION_FILES = (QUANTO_MAP, *_METHOD_OF_FILE)
"""Beside ``config.json``."""

_KEYS = ("quantization_config", OLDER_KEY, QUIP_PARAMS)

_OBJECTS = ("text_config", "sentence_transformers", "auto_map", *_KEYS)


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

    Raises:
        SourceError: As of ``read_config_file``.
    """
    config = read_config_file(folder / "config.json")
    said = _said_in(config)
    if said is None:
        said = _said_beside(folder)
    return config if said is None else {**config, "quantization_config": said}


def without_quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    """A ``config.json`` of the same model in float numbers."""
    kept = {key: value for key, value in config.items() if key not in _KEYS}
    if kept.get("text_config"):
        kept["text_config"] = without_quantization(kept["text_config"])
    return kept


def _said_in(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a ``config.json`` says of being quantized, under whichever name."""
    if config.get(OLDER_KEY) is not None:
        older = {"quant_method": "compressed-tensors", **config[OLDER_KEY]}
    else:
        older = None
    quip = config.get(QUIP_PARAMS)
    said = (
        config.get("quantization_config"),
        (config.get("text_config") or {}).get("quantization_config"),
        older,
        None if quip is None else {**quip, "quant_method": "quip-sharp"},
    )
    return next((one for one in said if one is not None), None)


def _said_beside(folder: Path) -> Mapping[str, Any] | None:
    """What a file beside ``config.json`` says of it."""
    if (file := folder / QUANTO_MAP).is_file():
        layers = read_json_file(file)
        if not isinstance(layers, dict) or not all(isinstance(o, dict) for o in layers.values()):
            raise SourceError(f"{file}: expected an object with one for each layer")
        return {"quant_method": "quanto", "layers": layers}
    for name, method in _METHOD_OF_FILE.items():
        if (file := folder / name).is_file():
            said = read_json_file(file)
            if not isinstance(said, dict):
                raise SourceError(f"{file}: expected an object")
            if any(key in said for key in _SAYS_SO):
                return {**said, "quant_method": said.get("quant_method") or method}
    return None


def check_config(where: object, config: Mapping[str, Any]) -> None:
    """Check the kinds and the bounds of what is read of a config before transformers has it.

    Args:
        where: Whose it is, for the message.
        config: A ``config.json``.

    Raises:
        SourceError: A key holds what it never does; names it, and what would be right.
    """
    for name in _OBJECTS:
        _check_object(where, name, config.get(name))
    _check_object(
        where,
        "quantization_config of text_config",
        (config.get("text_config") or {}).get("quantization_config"),
    )
    named = config.get("architectures")
    if not isinstance(named, list | None) or not all(isinstance(one, str) for one in named or []):
        raise SourceError(f"{where}: architectures is {_short(named)}; expected a list of names")
    if not isinstance(config.get("model_type"), str | None):
        kind = _short(config["model_type"])
        raise SourceError(f"{where}: model_type is {kind}; expected a name")
    for part in (config, config.get("text_config") or {}):
        for name in _NUMBERS:
            _check_number(where, name, part.get(name))


def _check_object(where: object, name: str, value: Any) -> None:
    if not isinstance(value, dict | None):
        raise SourceError(f"{where}: {name} is {_short(value)}; expected an object")


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
