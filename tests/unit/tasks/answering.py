"""Answers of a task over a checkpoint: prepared, opened, and run by the runtime ``torch``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.seams import (
    NO_OPTIONS,
    AnswerOptions,
    Checkpoint,
    EncoderEngine,
    EncoderTask,
    Input,
    OpenRequest,
    PrepareRequest,
)
from serving.tasks import TASKS


def prepare_and_open(
    task: str, checkpoint: Path, folder: Path, max_tokens: int | None = None
) -> Any:
    """Let a task write ``folder``, which is made, and open it."""
    folder.mkdir()
    TASKS[task].prepare(Checkpoint(checkpoint), folder)
    return TASKS[task].open(folder, max_tokens)


def open_engine(
    task: EncoderTask, checkpoint: Path, folder: Path, inputs: Sequence[Input]
) -> EncoderEngine:
    """Prepare and open an engine in ``fp32``; ``inputs`` are its example, at least two."""
    folder.mkdir()
    options = RECIPES["fp32"].options()
    RUNTIMES["torch"].prepare(
        PrepareRequest(
            checkpoint=Checkpoint(checkpoint),
            recipe="fp32",
            options=options,
            kind="encoder",
            head=task.head,
            device="cpu",
            threads=1,
            example=task.collate(task.prepare(inputs, True)),
            calibration=(),
            folder=folder,
        )
    )
    request = OpenRequest(folder, "fp32", options, task.head, "cpu", 1)
    return RUNTIMES["torch"].open_encoder(request)


def answers(
    task: EncoderTask,
    engine: EncoderEngine,
    inputs: Sequence[Input],
    options: AnswerOptions = NO_OPTIONS,
) -> NDArray[np.float32]:
    """Answer inputs in one batch, over-long ones cut."""
    rows = engine.forward(task.collate(task.prepare(inputs, True, options)))
    return task.decode(rows, options)
