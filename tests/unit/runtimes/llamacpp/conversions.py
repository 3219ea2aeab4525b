"""Conversions to GGUF that several tests need: each checkpoint's is made once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from serving.runtimes.llamacpp.conversion import convert
from serving.seams import Checkpoint

_CONVERT_ALL = """
import sys
from serving.runtimes.llamacpp.conversion_process import main
for folder, file in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    main(folder, file)
"""


class KeptConversions:
    """Converts as ``conversion.convert`` does, a checkpoint of the same files once.

    A process that imports torch for each takes seconds, and most tests mean something else.

    Args:
        root: An empty folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._notes: dict[str, tuple[str, ...]] = {}

    def convert(self, checkpoint: Checkpoint, file: Path) -> tuple[str, ...]:
        digest = sha256()
        for path in sorted(path for path in checkpoint.folder.rglob("*") if path.is_file()):
            digest.update(path.name.encode() + path.read_bytes())
        key = digest.hexdigest()
        if key not in self._notes:
            self._notes[key] = convert(checkpoint, self._root / key)
        shutil.copyfile(self._root / key, file)
        return self._notes[key]


def convert_all(files: Mapping[Path, Path]) -> None:
    """Convert each folder into its file, all in one process."""
    arguments = [str(path) for pair in files.items() for path in pair]
    command = [sys.executable, "-W", "ignore", "-c", _CONVERT_ALL, *arguments]
    subprocess.run(command, check=True, capture_output=True)
