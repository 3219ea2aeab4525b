"""Finds files of installed packages without importing anything."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from serving.errors import ConfigError

PREFIX = "package:"


def find_in_package(name: str) -> Path:
    """Where ``package:import_name/path`` lies; there need be nothing.

    ``package:a.b/c`` is ``b/c`` in the folder of the package ``a``.

    Raises:
        ConfigError: No such package is installed, or the path would leave it.
    """
    package, _, inside = name.removeprefix(PREFIX).partition("/")
    top, *below = package.split(".")
    if not all(part.isidentifier() for part in (top, *below)):
        raise ConfigError("expected package:import_name/path")
    if PurePosixPath(inside).is_absolute() or ".." in PurePosixPath(inside).parts:
        raise ConfigError("the path may not leave the package")
    try:
        spec = find_spec(top)
    except ValueError:  # a module in use that was not imported, such as __main__
        spec = None
    folders = spec.submodule_search_locations if spec is not None else None
    folder = Path(next(iter(folders)), *below) if folders else None
    if folder is None or not folder.is_dir():
        raise ConfigError(f"no Python package {package!r} is installed")
    return folder / inside
