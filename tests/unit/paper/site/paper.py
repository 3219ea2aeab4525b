"""Somebody else's package: a runtime, two recipes and a task, small enough to build in no time.

What preparing does beside its work stands in the checkpoint's file ``conduct``: a line in the file
``diary`` for each try, a pause of ``pause_s`` seconds while half of the weights are written, and an
end by ``fault``: ``refuse``, ``lack``, ``raise``, ``kill`` or ``exit``, where the options hold
``only``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from serving.errors import ConfigError, MayPass
from serving.quality.agreement import embeddings_judging
from serving.quality.dataset import read_examples
from serving.quality.probes import read_text_probes
from serving.seams import (
    DeviceName,
    EncoderExpectation,
    Footprint,
    Pooled,
    Prepared,
    Recipe,
    Runtime,
    SizeEstimate,
    Task,
)

WIDTH, MAX_TOKENS, NUMBERS = 4, 16, 1_000
PROBES = tuple("a" * length for length in range(1, 13))
MEBIBYTE = 1024**2
PROCESS_BYTES, EXTRA_BYTES, PREPARING_BYTES = 10 * MEBIBYTE, 2 * MEBIBYTE, 20 * MEBIBYTE
PRELOADED_BYTES = 3 * MEBIBYTE
"""Estimated; so is one byte for each number of the weights."""


class FoldedOptions(BaseModel, extra="forbid", frozen=True):
    """Options of the recipe ``folded``."""

    folds: int = 1


FOLDED = Recipe(
    "weights folded", EncoderExpectation(0.9, 0.01), generator=None, options=FoldedOptions
)
MEASURED = Recipe(
    "weights measured",
    EncoderExpectation(0.9, 0.01),
    generator=None,
    calibrates=lambda options: True,
)


def why_not(combination):
    if combination.recipe not in ("folded", "measured", "fp32"):
        return "paper can only be folded"
    if combination.config.get("model_type") == "stone":
        return "model_type 'stone' does not fold"
    return None


def estimate(request):
    weights = sum(int(np.prod(shape.shape)) for shape in request.shapes)
    kv_number = 2 if request.kind == "generator" else 0
    return SizeEstimate(
        weights, PROCESS_BYTES, EXTRA_BYTES, PREPARING_BYTES, kv_number, PRELOADED_BYTES
    )


def open_generator(request):
    raise ConfigError("paper is patient and says nothing")


def prepare(request):
    says = json.loads((request.checkpoint.folder / "conduct").read_text())
    with open(says["diary"], "a") as diary:
        diary.write(f"{os.getpid()}\n")
    first, second = (request.folder / name for name in ("first.bin", "second.bin"))
    first.write_bytes(bytes(NUMBERS))
    time.sleep(says.get("pause_s", 0))
    sys.stdout.write("libraries print a great deal\n")
    is_faulty = says.get("only", "") in str(request.options)
    match says.get("fault") if is_faulty else None:
        case "refuse":
            raise ConfigError("paper cannot hold [this] checkpoint")
        case "lack":
            raise MayPass("there is no room to fold in")
        case "raise":
            raise ValueError("wet paper")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(7)
    calibration = [
        [list(rows) for rows in batch["input_ids"].tolist()] for batch in request.calibration
    ]
    second.write_text(
        json.dumps(
            {
                "recipe": request.recipe,
                "options": request.options.model_dump(),
                "threads": request.threads,
                "example": request.example["input_ids"].tolist(),
                "calibration": calibration,
            }
        )
    )
    return Prepared(2 * NUMBERS, ("one corner stayed white",))


class Engine:
    """Answers with powers of a text's sum, each further fold one place further round.

    Folded 9 times, it answers with no numbers.
    """

    device: DeviceName = "cpu"

    def __init__(self, folds=1):
        self.folds = folds

    def use_cores(self, cores):
        pass

    def forward(self, inputs):
        ids = np.asarray(inputs["input_ids"], np.float32)
        powers = np.stack([ids.sum(1) ** power for power in range(WIDTH)], axis=1)
        return np.roll(powers, self.folds - 1, axis=1) if self.folds < 9 else powers * np.nan

    def footprint(self):
        return Footprint(2 * NUMBERS, 30 * MEBIBYTE, 20 * MEBIBYTE, 40 * MEBIBYTE)


def open_encoder(request):
    return Engine(getattr(request.options, "folds", 1))


RUNTIME = Runtime(
    summary="paper and pencil",
    packages=("paper",),
    preparing_packages=(),
    extra=None,
    devices=("cpu",),
    why_not=why_not,
    estimate=estimate,
    prepare=prepare,
    open_encoder=open_encoder,
    open_generator=open_generator,
)


@dataclass(frozen=True)
class Letters:
    text: str

    @property
    def cost(self):
        return len(self.text)


class LettersTask:
    head = Pooled()
    width = WIDTH
    labels = ()

    def __init__(self, limit):
        self.max_tokens = min(limit or MAX_TOKENS, MAX_TOKENS)

    def prepare(self, inputs, truncate, options=None):
        return [Letters(text[: self.max_tokens]) for text in inputs]

    def collate(self, items):
        width = max(item.cost for item in items)
        ids = [[ord(c) for c in item.text] + [0] * (width - item.cost) for item in items]
        mask = [[1] * item.cost + [0] * (width - item.cost) for item in items]
        return {"input_ids": np.asarray(ids), "attention_mask": np.asarray(mask)}

    def check_options(self, options):
        return None

    def decode(self, rows, options=None):
        return rows


def prepare_task(checkpoint, folder: Path):
    (folder / "letters.txt").write_text("abc")


TASK = Task(
    kind="encoder",
    prepare=prepare_task,
    open=lambda folder, limit: LettersTask(limit),
    read_probes=lambda path: PROBES if path is None else read_text_probes(path, path),
    read_labelled=read_examples,
    floor=0.5,
    tolerance=0.05,
    judging=embeddings_judging,
    show=lambda outcome, index: {"letters": outcome.rows[index].tolist()},
)
