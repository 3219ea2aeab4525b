"""What the process that makes an artifact is told, and how it ends."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from serving.artifacts.key import ArtifactKey
from serving.artifacts.request import ArtifactRequest

REFUSED, FAILED = 3, 4
"""Exit statuses: a refusal, which would come again, and any other error. Its text is the output."""


class BuildOrder(BaseModel):
    """What to make, and where.

    Attributes:
        request: What is asked for.
        key: What that means here.
        folder: An empty folder.
        threads: Intra-op threads that preparing may use.
        reference: Folder of the artifact that the new one must agree with; None without a floor.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    request: ArtifactRequest
    key: ArtifactKey
    folder: Path
    threads: int
    reference: Path | None = None
