"""Runs the command line as a user does, without a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from serving.artifacts import ArtifactStore
from serving.cli import app
from serving.cli.console import err, out

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch) -> Run:
    """Calls ``quantserve`` with arguments; lines are not wrapped."""
    for console in (out, err):
        monkeypatch.setattr(console, "_width", 400)
        monkeypatch.setattr(console, "_height", 50)

    def call(*arguments: Any) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return call


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    """The store that every configuration means."""
    monkeypatch.setenv("QUANTSERVE_ARTIFACTS__FOLDER", str(tmp_path / "store"))
    return ArtifactStore(tmp_path / "store")
