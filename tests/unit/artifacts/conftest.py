"""A store of artifacts."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.artifacts import ArtifactStore


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """An empty store."""
    return ArtifactStore(tmp_path / "store")
