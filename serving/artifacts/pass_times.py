"""What passes of an artifact took by number of threads, kept beside it for each kind of CPU."""

from __future__ import annotations

from pathlib import Path

from pydantic import RootModel, ValidationError

from serving.artifacts.kept_file import keep
from serving.artifacts.store import TIMES_SUFFIX, Artifact
from serving.machine.cores import available_cores
from serving.machine.isa import instruction_set
from serving.machine.processor import processor


class _TimesByCpu(RootModel[dict[str, dict[int, float]]]):
    """Seconds of a pass, by kind of CPU and number of threads."""


def read_pass_times(artifact: Artifact, draft: Artifact | None = None) -> dict[int, float] | None:
    """Return what was measured on this kind of CPU; None if nothing was.

    Args:
        artifact: Whose passes they are.
        draft: What proposes tokens in them; None if nothing does.
    """
    return _read(_file(artifact)).get(_kind(draft))


def write_pass_times(
    artifact: Artifact, times: dict[int, float], draft: Artifact | None = None
) -> None:
    """Keep what was measured on this CPU; a store that cannot be written keeps nothing."""
    file = _file(artifact)
    keep(file, _TimesByCpu({**_read(file), _kind(draft): times}).model_dump_json(indent=1))


def cpu_kind() -> str:
    """What must be the same for a measurement to hold."""
    return f"{processor()}, {available_cores()} cores, {instruction_set()}"


def _kind(draft: Artifact | None) -> str:
    return cpu_kind() if draft is None else f"{cpu_kind()}, drafted by {draft.id}"


def _file(artifact: Artifact) -> Path:
    return artifact.folder.with_name(artifact.id + TIMES_SUFFIX)


def _read(file: Path) -> dict[str, dict[int, float]]:
    try:
        return _TimesByCpu.model_validate_json(file.read_bytes()).root
    except (OSError, ValidationError):  # what is damaged is measured again
        return {}
