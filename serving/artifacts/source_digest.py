"""Digests of files, remembered so that a start need not read gigabytes again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path

from serving.artifacts.kept_file import keep

SETTLED_AFTER_S = 2.0
"""A file that changed more recently could change again within one tick of its file system."""


def file_digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class DigestCache:
    """Digests of files by place, size, time of change and inode.

    Args:
        file: Where they are kept. What other processes remember meanwhile may be lost, which costs
            them a second look at their files.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def digest_files(self, folder: Path, files: Iterable[Path]) -> str:
        """One digest of the names and the contents of files in ``folder``."""
        known = self._read()
        digests: dict[str, str] = {}
        settled: dict[str, str] = {}
        for path in files:
            fingerprint, is_settled = _fingerprint(path)
            digest = known.get(fingerprint) or file_digest(path)
            digests[str(path.relative_to(folder))] = digest
            if is_settled:
                settled[fingerprint] = digest
        if not settled.keys() <= known.keys():
            keep(self._file, json.dumps({**known, **settled}, indent=0))
        listing = json.dumps(digests, sort_keys=True)
        return hashlib.sha256(listing.encode()).hexdigest()

    def _read(self) -> dict[str, str]:
        try:
            known = json.loads(self._file.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}


def _fingerprint(path: Path) -> tuple[str, bool]:
    status = path.stat()
    fingerprint = (
        f"{path.resolve()} {status.st_size} {status.st_mtime_ns} {status.st_dev}:{status.st_ino}"
    )
    return fingerprint, time.time() - max(status.st_mtime, status.st_ctime) > SETTLED_AFTER_S
