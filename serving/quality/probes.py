"""Probes: the fixed inputs that every variant answers once when it is up."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from serving.errors import ConfigError
from serving.quality.json_lines import read_json_lines

MIN_PROBES = 11
"""Each embedding has 10 nearest among the others."""

MAX_PROBES = 1_000
"""Every variant answers all of them whenever it is deployed."""

_FOLDER = Path(__file__).with_name("probes")
_SHIPPED = {
    "embeddings": _FOLDER / "texts.jsonl",
    "classification": _FOLDER / "texts.jsonl",
    "generation": _FOLDER / "prompts.jsonl",
}


class _Probe(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    input: str = Field(min_length=1)


def read_probes(path: Path | None, task: str) -> tuple[str, ...]:
    """Return the probes of a file, in its order.

    Args:
        path: One JSON object ``{"input": …}`` a line; None takes those of the package.
        task: A text to embed or to classify, or a prompt to continue.

    Raises:
        ConfigError: The file cannot be read, or has too few or too many probes, or a line is
            wrong; names file and line.
    """
    path = path or _SHIPPED[task]
    probes = read_json_lines(path, _Probe, MAX_PROBES)
    if len(probes) < MIN_PROBES:
        raise ConfigError(f"{path}: {len(probes)} probes; at least {MIN_PROBES} are needed")
    return tuple(probe.input for probe in probes)
