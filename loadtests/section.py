"""What every part of a plan has in common: frozen, finite, and unknown keys are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from serving.errors import ConfigError
from serving.package_files import PREFIX, find_in_package

Positive = Annotated[float, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, le=100_000)]
"""Requests per second."""

Seconds = Annotated[float, Field(gt=0, le=86_400)]
"""At most a day."""

Pause = Annotated[float, Field(ge=0, le=3_600)]
"""Seconds, at most an hour."""


class Section(BaseModel):
    """A part of a plan."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def find_file(name: str, folder: Path) -> Path:
    """The file that a plan names: relative to the plan's folder, or ``package:import_name/path``.

    Raises:
        ConfigError: There is none.
    """
    try:
        path = find_in_package(name) if name.startswith(PREFIX) else folder / _expanded(name)
        if path.is_file():
            return path
    except (ConfigError, OSError) as error:
        raise ConfigError(f"{name}: {error}") from None
    raise ConfigError(f"{name}: no such file: {path}")


def _expanded(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError as error:  # of a user who does not exist
        raise ConfigError(str(error)) from None
