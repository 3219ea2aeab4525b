"""Which inputs a variant's recipe measures activations with, and its agreement."""

from __future__ import annotations

from pathlib import Path

from serving.artifacts import CalibrationOrigin
from serving.artifacts.calibration import read_held_out, read_inputs
from serving.config import ModelConfig, VariantConfig
from serving.errors import ConfigError
from serving.recipes import RECIPES


def calibration_origin(
    key: str, model: ModelConfig, variant: VariantConfig
) -> CalibrationOrigin | None:
    """Find the inputs that a variant calibrates with; None if its recipe does not.

    Args:
        key: Path of the variant's key, for messages.
        model: The model's configuration.
        variant: The variant's configuration.

    Raises:
        ConfigError: They are a file that cannot be read, or a dataset that the model lacks.
    """
    recipe = RECIPES[variant.recipe]
    if not recipe.calibrates(recipe.options(**variant.options)):
        return None
    origin = _data_of(key, model, variant)
    try:
        read_inputs(model.task, origin)
    except ConfigError as error:
        raise ConfigError(f"{key}.calibration.data: {error}") from None
    return origin


def held_out_origin(key: str, model: ModelConfig, variant: VariantConfig) -> CalibrationOrigin:
    """Find the data of which a variant with ``min_agreement`` holds inputs out to measure on.

    It is what a recipe would calibrate with; but the package's own probes are taken only where the
    configuration says so.

    Raises:
        ConfigError: The configuration names none, or it cannot be read, or has too few inputs.
    """
    names_data = variant.calibration.data is not None
    if not names_data and model.quality.dataset is None and model.quality.probes is None:
        raise ConfigError(
            f"{key}.min_agreement: model {model.name!r} names no data to measure it on. Add "
            "calibration: {data: FILE} to the variant (data: probes takes those of the package), "
            "or quality.dataset or quality.probes to the model"
        )
    origin = _data_of(key, model, variant)
    try:
        read_held_out(model.task, origin)
    except ConfigError as error:
        raise ConfigError(f"{key}.min_agreement: {error}") from None
    return origin


def _data_of(key: str, model: ModelConfig, variant: VariantConfig) -> CalibrationOrigin:
    wanted, dataset = variant.calibration.data, model.quality.dataset
    if wanted == "dataset" and dataset is None:
        raise ConfigError(
            f"{key}.calibration.data: model {model.name!r} has no quality.dataset; name a file, "
            f"or take the probes"
        )
    is_labelled = wanted == "dataset" or (wanted is None and dataset is not None)
    if is_labelled:
        name, file = "dataset", dataset
    elif wanted in ("probes", None):
        name, file = "probes", model.quality.probes
    else:
        name, file = Path(wanted).name, wanted
    # A builder may run in another folder.
    path = None if file is None else Path(file).expanduser().absolute()
    if wanted not in ("dataset", "probes", None) and path is not None and not path.is_file():
        raise ConfigError(
            f"{key}.calibration.data: no file {path}; give probes, dataset, or a file of the form "
            'that probes have: {"input": …} a line'
        )
    return CalibrationOrigin(
        name=name,
        path=path,
        is_labelled=is_labelled,
        count=variant.calibration.count,
        holds_out=variant.min_agreement is not None,
    )
