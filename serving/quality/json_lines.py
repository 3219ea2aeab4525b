"""Reading a user's file within bounds, and JSON lines of one shape from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from serving.errors import ConfigError
from serving.settings import explain

MAX_FILE_BYTES = 64 * 1024**2
"""Such a file is held in memory whole."""

Line = TypeVar("Line", bound=BaseModel)


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file; ``~`` stands for the home folder.

    Raises:
        ConfigError: It cannot be read, or is larger than ``MAX_FILE_BYTES``; names the file.
    """
    path = path.expanduser()
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(
                f"{path}: {path.stat().st_size / 1024**2:,.1f} MiB; at most "
                f"{MAX_FILE_BYTES // 1024**2} MiB are read. Give a sample of it"
            )
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def read_json_lines(path: Path, shape: type[Line], at_most: int) -> list[Line]:
    """Read a file with one JSON object of ``shape`` a line; empty lines are skipped.

    Raises:
        ConfigError: The file cannot be read, is empty or has more than ``at_most`` objects, or a
            line is wrong; names file and line.
    """
    # Not splitlines(): a JSON string may hold U+2028 and its like as they are.
    numbered = [(n, line) for n, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]
    check_count(path, len(numbered), at_most)
    return [_read_line(path, number, line, shape) for number, line in numbered]


def check_count(path: Path, count: int, at_most: int) -> None:
    """Raise ``ConfigError`` unless there are 1 to ``at_most`` texts in the file."""
    if count == 0:
        raise ConfigError(f"{path}: no texts")
    if count > at_most:
        raise ConfigError(f"{path}: {count:,} texts; at most {at_most:,} are read")


def _read_line(path: Path, number: int, line: str, shape: type[Line]) -> Line:
    try:
        return shape.model_validate(json.loads(line))
    except (ValueError, RecursionError) as error:
        said = explain(error) if isinstance(error, ValidationError) else f"not JSON: {error}"
        raise ConfigError(f"{path}: line {number}: {said}") from None
