"""Environments of the official clients, each with what differs from the project's own packages.

An environment lies over the project's: what a client needs and the project has at a fitting version
is not installed again. ``environments/NAME.txt`` lists the rest, exactly. It is kept outside the
tree under a name that says what is in it, so that a second run finds it made.

``python -m tests.clients.environments`` writes these lists anew from the ``environments/NAME.in``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

LISTS = Path(__file__).with_name("environments")
CACHE = Path.home() / ".cache" / "quantserve" / "clients"
PROJECT_PACKAGES = sysconfig.get_path("purelib")

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
INSTALL = ("install", "--quiet", "--only-binary", ":all:")
INSTALL_S = 900


class EnvironmentMissing(Exception):
    """An environment could not be made, mostly for want of a network."""


def python_of(name: str) -> Path:
    """The interpreter of an environment, which is made if it is not there.

    Raises:
        EnvironmentMissing: pip could not install its packages.
    """
    packages = LISTS / f"{name}.txt"
    folder = CACHE / f"{name}-{_digest(packages)}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        # Renamed when all is there; what holds for paths inside does not matter to `python -m`.
        made = Path(tempfile.mkdtemp(dir=CACHE, prefix=f"{name}.making."))
        try:
            _install(_empty(made), packages)
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return folder / "bin" / "python"


def _digest(packages: Path) -> str:
    """Names what an environment holds and what it lies over."""
    content = [packages.read_text(), sys.version, PROJECT_PACKAGES]
    return hashlib.sha256("\n".join(content).encode()).hexdigest()[:12]


def _empty(folder: Path) -> Path:
    """Make an environment that has the project's packages and none of its own; its interpreter."""
    venv.create(folder, symlinks=True, with_pip=False)
    own = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    Path(own, "project.pth").write_text(PROJECT_PACKAGES)
    return folder / "bin" / "python"


def _install(python: Path, packages: Path) -> None:
    # Modules are compiled when they are imported, which few of them ever are.
    options = ("--no-deps", "--no-compile", "--requirement", str(packages))
    done = _pip(python, *options)
    if done.returncode:
        raise EnvironmentMissing(
            f"the packages of {packages.name} could not be installed; is there a network, and a "
            f"package index behind it?\n{done.stderr[-2_000:]}"
        )


def _pip(python: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*PIP, "--python", str(python), *INSTALL, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)


def pin(wanted: Path) -> None:
    """Write the list of what an environment needs beside the project's packages.

    Args:
        wanted: What it is for, as a requirements file.
    """
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.json")
        python = _empty(Path(scratch, "environment"))
        done = _pip(python, "--dry-run", "--report", str(report), "--requirement", str(wanted))
        if done.returncode:
            raise EnvironmentMissing(done.stderr)
        found = [entry["metadata"] for entry in json.loads(report.read_text())["install"]]
    lines = sorted(f"{one['name'].lower().replace('_', '-')}=={one['version']}" for one in found)
    head = f"# Written by `python -m tests.clients.environments` from {wanted.name}.\n"
    wanted.with_suffix(".txt").write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    for each in sorted(LISTS.glob("*.in")):
        pin(each)
