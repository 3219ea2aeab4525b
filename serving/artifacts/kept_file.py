"""Small files in the store with what could be found anew: whole or as they were."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def keep(file: Path, content: str) -> None:
    """Replace a file, for any process that reads it meanwhile at once.

    A store that cannot be written keeps what it had, and nothing beside it.
    """
    with contextlib.suppress(OSError):
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        unfinished = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as opened:
                opened.write(content)
            unfinished.replace(file)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
