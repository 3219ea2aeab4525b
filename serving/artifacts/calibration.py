"""Inputs that a recipe measures activations with, those that are held out, and batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from serving.artifacts.key import CalibrationData
from serving.artifacts.request import CalibrationOrigin
from serving.errors import ConfigError
from serving.quality.dataset import Passage
from serving.seams import Arrays, EncoderTask, GenerationTask, Input
from serving.tasks import TASKS

BATCH_INPUTS = 16

TEXT_TOKENS = 512
"""Most tokens of a text that a generator calibrates with."""

EXAMPLE_INPUTS = 16
"""Enough for ``int4`` on torch to see which inputs of its layers are large: MiniLM's mean cosine
was 0.976 with 2 of the probes, padding counted in, and is 0.981 with 16 or with all of them."""

PROBES = "probes"
"""Name of an origin: the model's own probes."""

HELD_OUT_EACH, MIN_HELD_OUT, MAX_HELD_OUT = 5, 10, 200
"""Every fifth input is held out; so many are needed, and so many are taken at most."""


def read_inputs(task: str, origin: CalibrationOrigin) -> tuple[Input, ...]:
    """Read the inputs of an origin, at most ``count`` of them, evenly spread over the data.

    Raises:
        ConfigError: The file cannot be read, or a line is wrong, or there are too few to hold any
            out.
    """
    inputs = _read_all(task, origin)
    if origin.holds_out:
        inputs = _split(origin, inputs)[0]
    return _evenly(inputs, origin.count)


def read_held_out(task: str, origin: CalibrationOrigin) -> tuple[Input, ...]:
    """Read what no recipe calibrates with: every fifth different input, evenly 200 at most.

    Which these are does not depend on ``count``.

    Raises:
        ConfigError: As of ``read_inputs``.
    """
    return _evenly(_split(origin, _read_all(task, origin))[1], MAX_HELD_OUT)


def _read_all(task: str, origin: CalibrationOrigin) -> Sequence[Input]:
    entry = TASKS[task]
    if origin.is_labelled and origin.path is not None:
        return [_input_of(example) for example in entry.read_labelled(origin.path)]
    return entry.read_probes(origin.path)


def _split(
    origin: CalibrationOrigin, inputs: Sequence[Input]
) -> tuple[Sequence[Input], Sequence[Input]]:
    """Part inputs into those to calibrate with and those that are held out."""
    # What stands in the data twice would else be on both sides.
    different = list(dict.fromkeys(inputs))
    held_out = different[HELD_OUT_EACH - 1 :: HELD_OUT_EACH]
    if len(held_out) < MIN_HELD_OUT:
        raise ConfigError(
            f"{origin.name} has {len(different)} different inputs; "
            f"{HELD_OUT_EACH * MIN_HELD_OUT} are needed to hold every fifth of them out for "
            "min_agreement. Give more, or remove min_agreement"
        )
    del different[HELD_OUT_EACH - 1 :: HELD_OUT_EACH]
    return different, held_out


def _evenly(inputs: Sequence[Input], most: int) -> tuple[Input, ...]:
    count = min(most, len(inputs))
    return tuple(inputs[index * len(inputs) // count] for index in range(count))


def _input_of(example: Any) -> Input:
    if isinstance(example, Passage):
        return example.prompt + example.continuation
    given: Input = example.input
    return given


def describe_inputs(origin: CalibrationOrigin, inputs: Sequence[Input]) -> CalibrationData:
    """What an artifact's key and manifest say of its calibration."""
    digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
    return CalibrationData(name=origin.name, count=len(inputs), digest=digest)


def remarks(origin: CalibrationOrigin, count: int) -> tuple[str, ...]:
    """Say what is doubtful about a calibration with ``count`` inputs."""
    doubts = []
    if count < origin.count:
        beside = " beside those that are held out" if origin.holds_out else ""
        doubts.append(
            f"calibrates with {count} inputs of {origin.count} asked for: {origin.name} has no "
            f"more{beside}"
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


def calibration_texts(task: GenerationTask, inputs: Sequence[Input]) -> list[Arrays]:
    """Token ids of each text, int64 (1, at most ``TEXT_TOKENS``)."""
    texts = [task.encode_prompt(str(text))[:TEXT_TOKENS] for text in inputs]
    return [{"input_ids": np.array([tokens], np.int64)} for tokens in texts]


def example_batch(task: EncoderTask, probes: Sequence[Input]) -> Arrays:
    """A batch of ``EXAMPLE_INPUTS`` of the probes, from the shortest to the longest."""
    items = sorted(task.prepare(probes, True), key=lambda item: item.cost)
    count = min(EXAMPLE_INPUTS, len(items))
    return task.collate([items[n * (len(items) - 1) // (count - 1)] for n in range(count)])
