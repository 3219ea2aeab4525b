"""The store of artifacts: a folder with one subfolder for each, named by its key."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.artifacts.exclusive_lock import exclusive_lock, try_lock
from serving.artifacts.key import ID_DIGITS, ArtifactKey
from serving.artifacts.manifest import (
    MANIFEST,
    TASK_FOLDER,
    WEIGHTS_FOLDER,
    Manifest,
    read_manifest,
    reading,
    verify_files,
)
from serving.artifacts.source_digest import DigestCache
from serving.errors import ConfigError, DamagedArtifact, MayPass

_ID = re.compile(rf"[0-9a-f]{{{ID_DIGITS}}}")
MIN_DIGITS = 8
"""As many as the commands print."""

TIMES_SUFFIX = ".threads"
"""End of the name of a file that is no part of the artifact; see ``pass_times``."""

_UNFINISHED, _DISCARDED, _LOCK, _LOG = ".unfinished", ".discarded", ".lock", ".log"


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artifact in a store.

    Attributes:
        folder: Where it is; nothing in it changes.
        manifest: What is known of it.
    """

    folder: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        """Its name in every store."""
        return self.folder.name

    @property
    def task_folder(self) -> Path:
        """What the task opens."""
        return self.folder / TASK_FOLDER

    @property
    def weights_folder(self) -> Path:
        """What the runtime opens."""
        return self.folder / WEIGHTS_FOLDER

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return self.manifest.size


class ArtifactStore:
    """A folder of artifacts that processes and nodes share.

    Args:
        folder: Made if it is missing, for its owner only; ``~`` is the home folder.

    Raises:
        ConfigError: It is a file.
        MayPass: It cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().absolute()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError:
            raise ConfigError(
                f"artifacts.folder: {self.folder} is a file; name a folder, which is made if needed"
            ) from None
        except OSError as error:
            raise MayPass(f"artifacts.folder: {self.folder}: {error.strerror}") from None
        self._digests = DigestCache(self.folder / "digests.json")

    def source_digest(self, folder: Path, files: Sequence[Path]) -> str:
        """Digest of a checkpoint's files; see ``DigestCache``.

        Raises:
            MayPass: A file cannot be read.
        """
        try:
            return self._digests.digest_files(folder, files)
        except OSError as error:
            raise MayPass(f"{error.filename}: {error.strerror}") from None

    def find(self, key: ArtifactKey) -> Artifact | None:
        """The artifact with this key, every byte of it verified; None if there is none.

        Raises:
            DamagedArtifact: It is not what was written.
            MayPass: It cannot be read now.
        """
        artifact = self.look_up(key.id)
        if artifact is not None:
            verify_files(artifact.folder, artifact.manifest)
            # Tells ``prune`` when it was last wanted; a store may be mounted for reading only.
            with contextlib.suppress(OSError):
                os.utime(artifact.folder / MANIFEST)
        return artifact

    def look_up(self, artifact_id: str) -> Artifact | None:
        """The artifact of this id, without a look at the bytes of its files; None without one.

        Raises:
            DamagedArtifact: Its manifest is wrong, or a file is missing or has another size.
            MayPass: It cannot be read now.
        """
        folder = self.folder / artifact_id
        try:
            with reading(folder):
                is_there = stat.S_ISDIR(folder.stat().st_mode)
        except DamagedArtifact:
            is_there = False
        return Artifact(folder, read_manifest(folder)) if is_there else None

    def ids(self) -> list[str]:
        """Every artifact that is there, damaged ones too."""
        return sorted(path.name for path in self.folder.iterdir() if _ID.fullmatch(path.name))

    def last_used(self, artifact_id: str) -> float:
        """When it was made or last found, in seconds since 1970."""
        folder = self.folder / artifact_id
        manifest = folder / MANIFEST
        return (manifest if manifest.exists() else folder).stat().st_mtime

    def log_file(self, artifact_id: str) -> Path:
        """What the process wrote that could not make it."""
        return self.folder / f"{artifact_id}{_LOG}"

    @contextlib.contextmanager
    def lock(
        self, artifact_id: str, stop: threading.Event, on_wait: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Hold the right to make or remove an artifact; see ``exclusive_lock``.

        What a holder left unfinished that died is removed first.

        Raises:
            MayPass: The store cannot be written.
        """
        with contextlib.ExitStack() as held:
            with self._writing():
                lock = exclusive_lock(self.folder / f"{artifact_id}{_LOCK}", stop, on_wait)
                held.enter_context(lock)
            for leftover in self._leftovers(artifact_id):
                shutil.rmtree(leftover, ignore_errors=True)
            yield

    @contextlib.contextmanager
    def new_folder(self, artifact_id: str) -> Iterator[Path]:
        """An empty folder that becomes the artifact if the body ends well; hold its lock.

        Raises:
            MayPass: The store cannot be written.
        """
        with self._writing():
            folder = Path(
                tempfile.mkdtemp(prefix=f"{artifact_id}.", suffix=_UNFINISHED, dir=self.folder)
            )
        try:
            yield folder
            with self._writing():
                folder.rename(self.folder / artifact_id)
                self._write_through()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def discard(self, artifact_id: str) -> None:
        """Remove an artifact; hold its lock. A process that has it open keeps its files.

        Raises:
            MayPass: The store cannot be written.
        """
        with self._writing():
            # A folder that is half removed must not bear the name of an artifact.
            aside = tempfile.mkdtemp(prefix=f"{artifact_id}.", suffix=_DISCARDED, dir=self.folder)
            place = self.folder / artifact_id
            if place.is_symlink() or place.is_file():  # somebody else put it there
                place.unlink()
            with contextlib.suppress(FileNotFoundError):
                place.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
            for beside in (_LOG, TIMES_SUFFIX):
                (self.folder / f"{artifact_id}{beside}").unlink(missing_ok=True)

    def remove(self, artifact_id: str) -> None:
        """Remove an artifact, once nobody is making it."""
        with self.lock(artifact_id, threading.Event()):
            self.discard(artifact_id)

    def clean(self) -> None:
        """Remove what holders of locks left that died, and the logs of what could not be made."""
        for leftover in self._leftovers("*"):
            artifact_id = leftover.name.partition(".")[0]
            if (handle := try_lock(self.folder / f"{artifact_id}{_LOCK}")) is not None:
                shutil.rmtree(leftover, ignore_errors=True)
                (self.folder / f"{artifact_id}{_LOCK}").unlink(missing_ok=True)
                os.close(handle)
        for log in self.folder.glob(f"*{_LOG}"):
            log.unlink(missing_ok=True)

    def resolve(self, start: str) -> str:
        """The one artifact whose id starts so, with ``MIN_DIGITS`` or more.

        Raises:
            ConfigError: There is none, or several, or it is too short to be meant.
        """
        if len(start) < MIN_DIGITS:
            raise ConfigError(f"{start!r}: give at least the first {MIN_DIGITS} digits of the id")
        found = [artifact_id for artifact_id in self.ids() if artifact_id.startswith(start)]
        if len(found) != 1:
            what = f"{len(found)} artifacts start with" if found else "no artifact starts with"
            raise ConfigError(f"{self.folder}: {what} {start!r}")
        return found[0]

    def _leftovers(self, artifact_id: str) -> list[Path]:
        return [
            path
            for suffix in (_UNFINISHED, _DISCARDED)
            for path in self.folder.glob(f"{artifact_id}.*{suffix}")
        ]

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except InterruptedError:  # who waited was told to stop
            raise
        except OSError as error:
            raise MayPass(
                f"artifacts.folder: {self.folder} cannot be written: {error.strerror}"
            ) from None

    def _write_through(self) -> None:
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
