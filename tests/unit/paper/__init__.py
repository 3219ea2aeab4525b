"""Somebody else's package, as installed as it can be without pip: files on the path."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from serving.artifacts import ArtifactRequest, CalibrationOrigin
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.runtimes.matrix import installed_version
from serving.seams import Checkpoint
from serving.tasks import TASKS

SITE = Path(__file__).with_name("site")


class Paper:
    """The package, and a checkpoint for it.

    Args:
        folder: Where both are put.
    """

    def __init__(self, folder: Path, checkpoint_folder: Path) -> None:
        self.site = folder / "site"
        self.diary = folder / "diary"
        self.diary.touch()
        self.checkpoint = Checkpoint(checkpoint_folder)
        shutil.copytree(SITE, self.site)
        self.configure()

    def configure(self, **conduct: Any) -> None:
        """Write what preparing does; see ``site/paper.py``. The source stays the same."""
        file = self.checkpoint.folder / "conduct"
        file.write_text(json.dumps({"diary": str(self.diary), **conduct}))

    def update(self, version: str) -> None:
        """Install another version of the package."""
        metadata = self.site / "paper-1.0.dist-info" / "METADATA"
        metadata.write_text(metadata.read_text().replace("Version: 1.0", f"Version: {version}"))
        installed_version.cache_clear()

    @property
    def tries(self) -> int:
        """How often something was prepared."""
        return len(self.diary.read_text().splitlines())

    def request(self, variant: str = "folded", **changes: Any) -> ArtifactRequest:
        """Ask for a variant of the checkpoint."""
        request = ArtifactRequest(
            model="origami",
            variant=variant,
            checkpoint=self.checkpoint,
            task="letters",
            recipe="folded",
            runtime="paper",
            options={"folds": 1},
            wanted_device="auto",
            calibration=None,
            preparing_bytes=1,
        )
        return request.model_copy(update=changes)

    def measured(self, count: int = 8, path: Path | None = None) -> ArtifactRequest:
        """Ask for a variant that calibrates."""
        origin = CalibrationOrigin(name="probes", path=path, is_labelled=False, count=count)
        return self.request("measured", recipe="measured", options={}, calibration=origin)


@contextmanager
def installed(
    folder: Path, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Paper]:
    """Install the package for this process and for those that it starts."""
    paper = Paper(folder, checkpoint_folder)
    monkeypatch.syspath_prepend(paper.site)
    path = os.pathsep.join(filter(None, [str(paper.site), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    _forget()
    yield paper
    _forget()


def _forget() -> None:
    for table in (RECIPES, RUNTIMES, TASKS):
        vars(table).pop("_places", None)
    installed_version.cache_clear()
    sys.modules.pop("paper", None)
