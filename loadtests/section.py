"""What every part of a plan has in common: frozen, and unknown keys are refused."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from serving.errors import ConfigError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A part of a plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def find_file(name: str, folder: Path) -> Path:
    """The file that a plan names: relative to the plan's folder, or ``package:import_name/path``.

    Raises:
        ConfigError: There is none.
    """
    if name.startswith("package:"):
        package, _, inside = name.removeprefix("package:").partition("/")
        try:
            folder, name = Path(str(import_module(package).__file__)).parent, inside
        except ImportError:
            raise ConfigError(f"{name}: no package {package!r} is installed") from None
    path = folder / Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(f"{name}: no such file in {folder}")
    return path
