"""The manifest of an artifact: what it is, what made it, and every file with its digest."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.artifacts.key import ArtifactKey
from serving.artifacts.source_digest import file_digest
from serving.errors import DamagedArtifact, MayPass
from serving.seams import PreparedAgreement
from serving.settings import explain

MANIFEST = "manifest.json"
TASK_FOLDER, WEIGHTS_FOLDER = "task", "weights"


class StoredFile(BaseModel):
    """One file of an artifact.

    Attributes:
        size: In bytes.
        sha256: In hexadecimal digits.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(ge=0)
    sha256: str


class Manifest(BaseModel):
    """What is known of an artifact.

    Attributes:
        key: Its identity.
        made_for: The variant that it was first made for, e.g. ``minilm:int8-ov``.
        source: Where the checkpoint was, for people.
        created: When it was made.
        seconds: How long that took.
        peak_bytes: Largest resident memory of the process that made it.
        weights_bytes: As of ``Prepared``.
        notes: What an operator should know of it.
        files: Every other file, by its path below the artifact's folder.
        agreement: What was measured before it was installed; None without a floor.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: ArtifactKey
    made_for: str
    source: str
    created: datetime
    seconds: float
    peak_bytes: int
    weights_bytes: int
    notes: tuple[str, ...]
    files: dict[str, StoredFile]
    agreement: PreparedAgreement | None = Field(
        default=None, exclude_if=lambda agreement: agreement is None
    )

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files.values())


def list_files(folder: Path) -> dict[str, StoredFile]:
    """Every file below a folder with its size and digest, written through to the disk."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        _write_through(path)
        name = path.relative_to(folder).as_posix()
        files[name] = StoredFile(size=path.stat().st_size, sha256=file_digest(path))
    return files


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, the last file of an artifact."""
    path = folder / MANIFEST
    path.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    _write_through(path)


def read_manifest(folder: Path) -> Manifest:
    """Read an artifact's manifest and look whether its files are there in their size.

    Raises:
        DamagedArtifact: Anything is missing or wrong; names the file.
        MayPass: One cannot be read now, be it right or wrong.
    """
    path = folder / MANIFEST
    try:
        with reading(path):
            manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DamagedArtifact(f"{path}: {explain(error)}") from None
    if manifest.key.id != folder.name:
        raise DamagedArtifact(f"{path}: describes the artifact {manifest.key.id}")
    for name, stored in manifest.files.items():
        with reading(folder / name):
            size = (folder / name).stat().st_size
        if size != stored.size:
            raise DamagedArtifact(f"{folder / name}: {size} bytes; {stored.size} were written")
    return manifest


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Compare the digest of every file.

    Raises:
        DamagedArtifact: One is not what was written; names the file.
        MayPass: One cannot be read now.
    """
    for name, stored in manifest.files.items():
        with reading(folder / name):
            digest = file_digest(folder / name)
        if digest != stored.sha256:
            raise DamagedArtifact(f"{folder / name}: its bytes are not those that were written")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Tell a file that is not there from one that only cannot be read now.

    Raises:
        DamagedArtifact: There is no such file.
        MayPass: This node cannot read it, while others that share the store may.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise DamagedArtifact(f"{path}: cannot be read: {error.strerror}") from None
    except OSError as error:
        raise MayPass(f"{path}: cannot be read: {error.strerror}") from None


def _write_through(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
