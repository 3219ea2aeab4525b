"""Installs a package of somebody else, as a user would, for the tests of what it adds."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).parent


def install_other_package(folder: Path) -> Path:
    """Install ``quantserve-int2`` into a folder, which belongs on ``PYTHONPATH`` then."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    # Nothing is fetched: setuptools is there already.
    command += ["--no-build-isolation", "--no-index", "--target", str(folder)]
    with tempfile.TemporaryDirectory() as scratch:
        # setuptools writes beside the sources.
        copy = shutil.copytree(SOURCE, Path(scratch, "source"))
        subprocess.run([*command, str(copy)], check=True)
    return folder
