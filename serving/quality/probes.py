"""Probes: the fixed inputs that every variant answers once when it is up."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from serving.errors import ConfigError
from serving.quality.json_lines import Line, read_json_lines
from serving.seams import Input

MIN_PROBES = 11
"""Each embedding has 10 nearest among the others."""

MAX_PROBES = 1_000
"""Every variant answers all of them whenever it is deployed."""

_FOLDER = Path(__file__).with_name("probes")
TEXTS = _FOLDER / "texts.jsonl"
"""Shipped: sentences and paragraphs of many kinds."""

PROMPTS = _FOLDER / "prompts.jsonl"
"""Shipped: beginnings to continue."""

PAIRS = _FOLDER / "pairs.jsonl"
"""Shipped: queries with documents that answer them, touch them, or do not."""


class _Text(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    input: str = Field(min_length=1)


class _Pair(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    query: str = Field(min_length=1)
    document: str = Field(min_length=1)


def read_text_probes(path: Path | None, shipped: Path) -> tuple[str, ...]:
    """Return the texts of a file, in its order.

    Args:
        path: One JSON object ``{"input": …}`` a line; None takes ``shipped``.
        shipped: Those of the package, ``TEXTS`` or ``PROMPTS``.

    Raises:
        ConfigError: The file cannot be read, or has too few or too many probes, or a line is
            wrong; names file and line.
    """
    return tuple(line.input for line in _read(path or shipped, _Text))


def read_pair_probes(path: Path | None) -> tuple[tuple[str, str], ...]:
    """Return the pairs of a file, or (None) of ``PAIRS``; see ``read_text_probes``.

    Args:
        path: One JSON object ``{"query": …, "document": …}`` a line.
    """
    return tuple((line.query, line.document) for line in _read(path or PAIRS, _Pair))


def probe_line(given: Input) -> dict[str, str]:
    """An input as the JSON object that a file of probes has for it."""
    if isinstance(given, str):
        return {"input": given}
    query, document = given
    return {"query": query, "document": document}


def _read(path: Path, shape: type[Line]) -> list[Line]:
    probes = read_json_lines(path, shape, MAX_PROBES)
    if len(probes) < MIN_PROBES:
        raise ConfigError(f"{path}: {len(probes)} probes; at least {MIN_PROBES} are needed")
    return probes
