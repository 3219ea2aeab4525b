"""A task that quantserve does not know, offered as an installed package offers one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.quality.dataset import read_examples
from serving.quality.probes import probe_line, read_pair_probes
from serving.seams import EncoderJudging, Outcome, ProbeRows, Task
from serving.tasks import TASKS
from tests.unit.fakes.encoder import FakeTask

NAME = "likeness"
PROBES = tuple((f"query {number}", f"document {number}") for number in range(60))


def _agreement(
    row: NDArray[np.float32], reference: NDArray[np.float32], probes: ProbeRows | None
) -> float:
    """Whether both are likelier than the same number of probes."""
    assert probes is not None
    return float(
        (probes.rows[:, 0] < row[0]).sum() == (probes.reference[:, 0] < reference[0]).sum()
    )


def _measures(row: NDArray[np.float32], reference: NDArray[np.float32]) -> Mapping[str, float]:
    return {"log_growth": float(np.log(row[0] / reference[0]))}


def _show(outcome: Outcome, index: int) -> dict[str, Any]:
    return {"likeness": float(outcome.rows[index, 0])}


TASK = Task(
    kind="encoder",
    prepare=lambda checkpoint, folder: None,
    open=lambda folder, max_tokens: FakeTask(),
    read_probes=read_pair_probes,
    read_labelled=read_examples,
    floor=0.125,
    tolerance=0.0625,
    judging=lambda: EncoderJudging(_agreement, _measures, needs_probes=True),
    show=_show,
)


@contextmanager
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have a package that offers ``TASK`` among the installed ones."""
    metadata = folder / "likeness-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: likeness\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[quantserve.tasks]\n{NAME} = {__name__}:TASK\n")
    monkeypatch.syspath_prepend(folder)
    # What is installed is looked up once.
    vars(TASKS).pop("_places", None)
    yield
    vars(TASKS).pop("_places", None)


def write_probes(file: Path) -> None:
    """A file of ``PROBES``."""
    file.write_text("\n".join(json.dumps(probe_line(pair)) for pair in PROBES), encoding="utf-8")
