"""How sentence-transformers' files say that token vectors become one vector per text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from serving.errors import ConfigError
from serving.seams import Checkpoint, Pooled, Pooling
from serving.tasks.row_layer_files import ROW_MODULES, FoundLayer, read_row_layers
from serving.tasks.row_layers import UnitLength
from serving.tasks.sentence_transformers_files import (
    ModuleEntry,
    default_prompt,
    known_prompts,
    read_library_settings,
    read_module_config,
    read_modules,
)

_POOLINGS: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "max": "max", "lasttoken": "last"}

_OLD_SWITCH = "pooling_mode_"
"""Before version 6 each mode had a switch, e.g. ``pooling_mode_mean_tokens: true``."""


class PoolingSettings(BaseModel):
    """The config of the module ``Pooling``."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    embedding_dimension: int | None = Field(
        default=None,
        validation_alias=AliasChoices("embedding_dimension", "word_embedding_dimension"),
    )
    pooling_mode: list[str] = ["mean"]
    include_prompt: bool = True

    @model_validator(mode="before")
    @classmethod
    def _join_switches(cls, data: Any) -> Any:
        """Bring old forms into the one of version 6; the library gives the new key precedence."""
        if not isinstance(data, dict):
            return data
        switches = {key: on for key, on in data.items() if key.startswith(_OLD_SWITCH)}
        settings = {key: value for key, value in data.items() if key not in switches}
        switched_on = [_mode(key) for key, on in switches.items() if on]
        chosen = settings.get("pooling_mode") or switched_on or ["mean"]
        return {**settings, "pooling_mode": [chosen] if isinstance(chosen, str) else chosen}


class EmbeddingsFiles(NamedTuple):
    """What the files say.

    Attributes:
        head: How token vectors become one.
        layers: What becomes of that before it has length 1.
        truncate_dim: Leading numbers that are kept; None keeps all.
        prompts: What may stand before a text, by name.
        default_prompt: What does if a request names none; may be empty.
        pools_prompt: Whether the tokens of a prompt take part in the pooling.
    """

    head: Pooled
    layers: tuple[FoundLayer, ...]
    truncate_dim: int | None
    prompts: Mapping[str, str]
    default_prompt: str
    pools_prompt: bool


def read_embeddings_files(checkpoint: Checkpoint) -> EmbeddingsFiles:
    """Read the files of a checkpoint; without them, the mean of unit length.

    Raises:
        ConfigError: They ask for a module, a pooling or a setting that is not built here.
    """
    modules = read_modules(checkpoint)
    if not modules and (checkpoint.folder / "1_Pooling").is_dir():
        raise ConfigError(
            f"{checkpoint.folder}: has 1_Pooling but no modules.json, which says how it is used; "
            "fetch that, too"
        )
    library = read_library_settings(checkpoint, "SentenceTransformer")
    prompt = default_prompt(library)
    layers: tuple[FoundLayer, ...] = ()
    head, pools_prompt = Pooled(), True
    if modules:
        _check_pipeline(checkpoint, modules)
        pooling, pools_prompt = _pooling(checkpoint, modules[1], prompt)
        layers = read_row_layers(checkpoint, modules[2:])
        # The last one is apart: a request may want it, or not.
        is_unit = bool(layers) and isinstance(layers[-1].layer, UnitLength)
        layers = layers[:-1] if is_unit else layers
        head = Pooled(pooling=pooling, normalize=is_unit)
    return EmbeddingsFiles(
        head, layers, library.truncate_dim, known_prompts(library), prompt, pools_prompt
    )


def _check_pipeline(checkpoint: Checkpoint, modules: list[ModuleEntry]) -> None:
    kinds = [module.kind for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or not set(kinds[2:]) <= {*ROW_MODULES}:
        raise ConfigError(
            f"{checkpoint.folder / 'modules.json'}: unsupported modules {', '.join(kinds)}; "
            f"supported: Transformer, Pooling, and after them {', '.join(ROW_MODULES)} (of "
            "sentence-transformers)"
        )


def _pooling(checkpoint: Checkpoint, module: ModuleEntry, prompt: str) -> tuple[Pooling, bool]:
    settings = read_module_config(checkpoint, module, PoolingSettings)
    where = checkpoint.folder / module.path / "config.json"
    match settings.pooling_mode:
        case [mode] if mode in _POOLINGS:
            pooling = _POOLINGS[mode]
        case modes:
            raise ConfigError(
                f"{where}: unsupported pooling {', '.join(modes)}; supported: one of "
                f"{', '.join(_POOLINGS)}"
            )
    if prompt and not settings.include_prompt:
        raise ConfigError(
            f"{where}: include_prompt is false, but the prompt {prompt!r} stands before every "
            "text: leaving a prompt out of the pooling is not supported"
        )
    return pooling, settings.include_prompt


def _mode(switch: str) -> str:
    return re.sub("_tokens?$", "", switch.removeprefix(_OLD_SWITCH))
