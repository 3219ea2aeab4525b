"""A runtime and two tasks as an installed package offers them; they open what a test staged."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from serving.quality.agreement import embeddings_judging
from serving.quality.dataset import read_examples
from serving.runtimes import RUNTIMES
from serving.seams import (
    Checkpoint,
    EncoderEngine,
    GeneratorEngine,
    OpenGeneratorRequest,
    OpenRequest,
    Prepared,
    PrepareRequest,
    Runtime,
    SizeEstimate,
    Task,
)
from serving.tasks import TASKS
from tests.unit.fakes.encoder import FakeEngine, FakeTask
from tests.unit.fakes.generator import FakeGenerationTask, FakeGenerator

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[3]
RUNTIME_NAME, ENCODER_TASK, GENERATOR_TASK = "staged", "staged-encoder", "staged-generator"
TASK_FILE, WEIGHTS_FILE = "written-by-the-task", "written-by-the-runtime"
PROBES = ("a first probe", "another")


@dataclass
class Stage:
    """What is opened next, and what was opened.

    Attributes:
        task: Likewise ``engine``, ``generation_task`` and ``generator``.
        refusal: Raised instead of an engine.
        asked: What engines were opened with.
        tasks_from: Folders that tasks were opened from.
        threads: Threads in which engines were opened.
    """

    task: FakeTask = field(default_factory=FakeTask)
    engine: FakeEngine = field(default_factory=FakeEngine)
    generation_task: FakeGenerationTask = field(default_factory=FakeGenerationTask)
    generator: FakeGenerator = field(default_factory=FakeGenerator)
    refusal: Exception | None = None
    asked: list[OpenRequest | OpenGeneratorRequest] = field(default_factory=list)
    tasks_from: list[Path] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def note(self, request: OpenRequest | OpenGeneratorRequest) -> None:
        self.asked.append(request)
        self.threads.append(threading.current_thread())
        if self.refusal is not None:
            raise self.refusal


STAGE = Stage()


def open_encoder(request: OpenRequest) -> EncoderEngine:
    STAGE.note(request)
    return STAGE.engine


def open_generator(request: OpenGeneratorRequest) -> GeneratorEngine:
    STAGE.note(request)
    STAGE.generator.max_tokens = request.max_tokens
    return STAGE.generator


def prepare(request: PrepareRequest) -> Prepared:
    (request.folder / WEIGHTS_FILE).write_text(f"{request.recipe} {request.options}")
    return Prepared(weights_bytes=100)


RUNTIME = Runtime(
    summary="whatever a test stages",
    packages=(),
    preparing_packages=(),
    extra=None,
    devices=("cpu",),
    why_not=lambda combination: None,
    estimate=lambda request: SizeEstimate(1, 1, 1, 1),
    prepare=prepare,
    open_encoder=open_encoder,
    open_generator=open_generator,
)


def prepare_task(checkpoint: Checkpoint, folder: Path) -> None:
    (folder / TASK_FILE).touch()


def open_task(folder: Path, max_tokens: int | None) -> FakeTask:
    STAGE.tasks_from.append(folder)
    STAGE.task.max_tokens = max_tokens or FakeTask.max_tokens
    return STAGE.task


def open_generation_task(folder: Path, max_tokens: int | None) -> FakeGenerationTask:
    STAGE.tasks_from.append(folder)
    STAGE.generation_task.max_tokens = max_tokens or FakeGenerationTask.max_tokens
    return STAGE.generation_task


ENCODER = Task(
    kind="encoder",
    prepare=prepare_task,
    open=open_task,
    read_probes=lambda path: PROBES,
    read_labelled=read_examples,
    floor=0.5,
    tolerance=0.05,
    judging=embeddings_judging,
    show=lambda outcome, index: {"row": outcome.rows[index].tolist()},
)
GENERATOR = Task(
    kind="generator",
    prepare=prepare_task,
    open=open_generation_task,
    read_probes=lambda path: PROBES,
    read_labelled=read_examples,
    floor=0.5,
    tolerance=0.05,
)


@contextmanager
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Have this among the installed packages, of processes that make artifacts too."""
    metadata = folder / "staged-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: staged\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        f"[quantserve.runtimes]\n{RUNTIME_NAME} = {__name__}:RUNTIME\n"
        f"[quantserve.tasks]\n{ENCODER_TASK} = {__name__}:ENCODER\n"
        f"{GENERATOR_TASK} = {__name__}:GENERATOR\n"
    )
    monkeypatch.syspath_prepend(folder)
    path = [str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    monkeypatch.setattr(f"{__name__}.STAGE", stage := Stage())
    _forget()
    yield stage
    _forget()


def _forget() -> None:
    for table in (RUNTIMES, TASKS):  # what is installed is looked up once
        vars(table).pop("_places", None)
