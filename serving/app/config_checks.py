"""Whether a model's configuration names what there is; no source is looked for."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError

from serving.config import ModelConfig, VariantConfig
from serving.errors import ConfigError
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.seams import Task
from serving.settings import explain
from serving.tasks import TASKS

KEYS_OF = {
    "max_batch_tokens": "encoder",
    "max_running_requests": "generator",
    "kv_cache": "generator",
    "draft": "generator",
}
"""Keys of a variant that mean something for one kind of engine only."""


def check_model(key: str, model: ModelConfig) -> None:
    """Look up every name that a model's configuration gives, and read its files.

    Args:
        key: Path of the model's key, for messages.
        model: The model's configuration.

    Raises:
        ConfigError: A task, recipe, runtime or option is unknown, a key means nothing here, or a
            file of probes or labelled data is wrong; names the key.
    """
    try:
        task = TASKS[model.task]
    except ConfigError as error:
        raise ConfigError(f"{key}.task: {error}") from None
    for index, variant in enumerate(model.variants):
        _check_variant(f"{key}.variants[{index}]", model, variant, task)
    _check_quality(f"{key}.quality", model, task)


def _check_variant(key: str, model: ModelConfig, variant: VariantConfig, task: Task) -> None:
    for name, kind in KEYS_OF.items():
        if name in variant.model_fields_set and kind != task.kind:
            raise ConfigError(
                f"{key}.{name}: a key of {kind}s; {model.name!r} serves {model.task}. Remove it"
            )
    try:
        recipe = RECIPES[variant.recipe]
    except ConfigError as error:
        raise ConfigError(f"{key}.recipe: {error}") from None
    try:
        RUNTIMES[variant.runtime]
    except ConfigError as error:
        raise ConfigError(f"{key}.runtime: {error}") from None
    calibrates = recipe.calibrates(recipe_options(key, variant))
    if "calibration" in variant.model_fields_set and not calibrates:
        useless = "calibration" if variant.min_agreement is None else "calibration.count"
        if useless == "calibration" or "count" in variant.calibration.model_fields_set:
            raise ConfigError(
                f"{key}.{useless}: recipe {variant.recipe!r} measures no activations with these "
                "options. Remove it"
            )


def recipe_options(key: str, variant: VariantConfig) -> BaseModel:
    """Options of a variant's recipe, with their defaults.

    Raises:
        ConfigError: One is unknown or wrong; names its key.
    """
    try:
        return RECIPES[variant.recipe].options(**variant.options)
    except ValidationError as error:
        raise ConfigError(f"{key}.options.{explain(error)}") from None


def _check_quality(key: str, model: ModelConfig, task: Task) -> None:
    """Read the files that the variants will be judged by, so that a wrong one is told now."""
    files = (
        ("probes", model.quality.probes, task.read_probes),
        ("dataset", model.quality.dataset, task.read_labelled),
    )
    for name, file, read in files:
        if file is None:
            continue
        try:
            read(Path(file))
        except ConfigError as error:
            raise ConfigError(f"{key}.{name}: {error}") from None
