"""Inputs that a recipe measures activations with, and batches of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from serving.artifacts.key import CalibrationData
from serving.artifacts.request import CalibrationOrigin
from serving.seams import Arrays, EncoderTask, Input
from serving.tasks import TASKS

BATCH_INPUTS = 16

EXAMPLE_INPUTS = 16
"""Enough for ``int4`` on torch to see which inputs of its layers are large: MiniLM's mean cosine
was 0.976 with 2 of the probes, padding counted in, and is 0.981 with 16 or with all of them."""

PROBES = "probes"
"""Name of an origin: the model's own probes."""


def read_inputs(task: str, origin: CalibrationOrigin) -> tuple[Input, ...]:
    """Read the inputs of an origin, at most ``count`` of them, evenly spread over the data.

    Raises:
        ConfigError: The file cannot be read, or a line is wrong.
    """
    entry = TASKS[task]
    inputs: Sequence[Input]
    if origin.is_labelled and origin.path is not None:
        inputs = [example.input for example in entry.read_labelled(origin.path)]
    else:
        inputs = entry.read_probes(origin.path)
    count = min(origin.count, len(inputs))
    return tuple(inputs[index * len(inputs) // count] for index in range(count))


def describe_inputs(origin: CalibrationOrigin, inputs: Sequence[Input]) -> CalibrationData:
    """What an artifact's key and manifest say of its calibration."""
    digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
    return CalibrationData(name=origin.name, count=len(inputs), digest=digest)


def remarks(origin: CalibrationOrigin, count: int) -> tuple[str, ...]:
    """Say what is doubtful about a calibration with ``count`` inputs."""
    doubts = []
    if count < origin.count:
        doubts.append(
            f"calibrates with {count} inputs of {origin.count} asked for: {origin.name} has no more"
        )
    if origin.name == PROBES:
        doubts.append(
            "calibrates with the probes that will judge it, which flatters it; give it other data"
        )
    return tuple(doubts)


def calibration_batches(task: EncoderTask, inputs: Sequence[Input]) -> list[Arrays]:
    """Batches of at most ``BATCH_INPUTS`` inputs, those of similar length together."""
    items = sorted(task.prepare(inputs, True), key=lambda item: item.cost)
    return [
        task.collate(items[start : start + BATCH_INPUTS])
        for start in range(0, len(items), BATCH_INPUTS)
    ]


def example_batch(task: EncoderTask, probes: Sequence[Input]) -> Arrays:
    """A batch of ``EXAMPLE_INPUTS`` of the probes, from the shortest to the longest."""
    items = sorted(task.prepare(probes, True), key=lambda item: item.cost)
    count = min(EXAMPLE_INPUTS, len(items))
    return task.collate([items[n * (len(items) - 1) // (count - 1)] for n in range(count)])
