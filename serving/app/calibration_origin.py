"""Which inputs a variant's recipe measures activations with."""

from __future__ import annotations

from pathlib import Path

from serving.artifacts import CalibrationOrigin
from serving.artifacts.calibration import read_inputs
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
    if not RECIPES[variant.recipe].calibrates:
        return None
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
    origin = CalibrationOrigin(
        name=name, path=path, is_labelled=is_labelled, count=variant.calibration.count
    )
    try:
        read_inputs(model.task, origin)
    except ConfigError as error:
        raise ConfigError(f"{key}.calibration.data: {error}") from None
    return origin
