"""The classic experiment: every variant of a model over the same inputs, one after the other."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.app.plan import Plan, PlannedVariant
from serving.artifacts import Artifact
from serving.errors import ConfigError
from serving.quality.dataset import Example, read_examples
from serving.replica.encoder.batching import split_by_cost
from serving.replica.encoder.loading import MAX_BATCH_TOKENS, open_encoder
from serving.seams import Footprint, Input, Task
from serving.tasks import TASKS


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one variant did with the inputs.

    Attributes:
        rows: Its answers, (inputs, width).
        labels: Name of each column of a classification.
        elapsed_s: Seconds to tokenize and answer every input, opening left out.
        load_s: Seconds to open the artifact and run once.
        footprint: What its process occupied after the run.
        disk_bytes: Size of the artifact's files.
    """

    rows: NDArray[np.float32]
    labels: tuple[str, ...]
    elapsed_s: float
    load_s: float
    footprint: Footprint
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class Row:
    """One variant's line of the comparison.

    Attributes:
        variant: Its name.
        accuracy: Share of labels met; None where the data has none.
        measures: How far its answers agree with the reference's, by name: means over the inputs.
        measurement: The rest.
    """

    variant: str
    accuracy: float | None
    measures: Mapping[str, float]
    measurement: Measurement


def variants_of(plan: Plan, model: str) -> list[PlannedVariant]:
    """The variants of a model that can be compared, the reference first.

    Raises:
        ConfigError: The model is unknown or generates.
    """
    variants = [planned for planned in plan.variants if planned.model.name == model]
    if not variants:
        known = dict.fromkeys(planned.model.name for planned in plan.variants)
        raise ConfigError(f"unknown model {model!r}; configured: {', '.join(known)}")
    if TASKS[variants[0].model.task].kind == "generator":
        raise ConfigError(f"model {model!r} generates; only encoders can be compared so far")
    return sorted(variants, key=lambda planned: planned.variant.name != planned.model.reference)


def read_data(path: Path, task: Task) -> list[Example]:
    """Read inputs to compare variants on: with or without labels, or in the form of probes.

    Raises:
        ConfigError: The file cannot be read, or a line is wrong.
    """
    if isinstance(task.read_probes(None)[0], str):
        return read_examples(path, need_labels=False)
    return [Example(pair) for pair in task.read_probes(path)]


def compare(
    variants: Sequence[PlannedVariant],
    artifacts: Sequence[Artifact],
    examples: Sequence[Example],
) -> Iterator[Row]:
    """Measure variants on ``examples``, the reference first.

    Each runs in a process of its own, so that its memory is its own.

    Args:
        variants: What ``variants_of`` returned.
        artifacts: That of each.
        examples: Inputs, all with labels or none.

    Raises:
        ConfigError: The model has no such labels, or a variant cannot be opened.
    """
    inputs = [example.input for example in examples]
    reference: NDArray[np.float32] | None = None
    for planned, artifact in zip(variants, artifacts, strict=True):
        measurement = _measure_alone(planned, artifact, inputs)
        if reference is None:
            reference = measurement.rows
        yield Row(
            variant=planned.variant.name,
            accuracy=_accuracy(measurement, examples),
            measures=_measures(TASKS[planned.model.task], measurement.rows, reference),
            measurement=measurement,
        )


def measure(planned: PlannedVariant, artifact: Artifact, inputs: Sequence[Input]) -> Measurement:
    """Open one variant in this process and answer every input; over-long ones are cut."""
    opened = open_encoder(planned.model, planned.variant, planned.device, artifact)
    task, engine = opened.task, opened.engine
    max_batch_tokens = planned.variant.max_batch_tokens or MAX_BATCH_TOKENS[planned.device]
    started = time.perf_counter()
    items = task.prepare(inputs, True)
    rows = np.empty((len(inputs), task.width), np.float32)
    for batch in split_by_cost([item.cost for item in items], max_batch_tokens):
        rows[batch] = engine.forward(task.collate([items[index] for index in batch]))
    elapsed = time.perf_counter() - started
    return Measurement(
        rows=task.decode(rows, None),
        labels=task.labels,
        elapsed_s=elapsed,
        load_s=opened.load_seconds,
        footprint=engine.footprint(),
        disk_bytes=artifact.size,
    )


def _measure_alone(
    planned: PlannedVariant, artifact: Artifact, inputs: Sequence[Input]
) -> Measurement:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
        try:
            return process.submit(measure, planned, artifact, inputs).result()
        except BrokenProcessPool:
            name = f"{planned.model.name}:{planned.variant.name}"
            raise ConfigError(f"{name}: the process was killed; is the memory enough?") from None


def _accuracy(measurement: Measurement, examples: Sequence[Example]) -> float | None:
    if not measurement.labels or examples[0].label is None:
        return None
    unknown = {str(example.label) for example in examples} - set(measurement.labels)
    if unknown:
        raise ConfigError(
            f"the data has labels {', '.join(sorted(unknown))}; the model has "
            f"{', '.join(measurement.labels)}"
        )
    predicted = [measurement.labels[index] for index in measurement.rows.argmax(axis=1)]
    met = [label == example.label for label, example in zip(predicted, examples, strict=True)]
    return float(np.mean(met))


def _measures(
    task: Task, rows: NDArray[np.float32], reference: NDArray[np.float32]
) -> dict[str, float]:
    # scipy comes with it, which takes a second that no other command needs.
    from serving.quality.measures import plain

    assert task.judging is not None  # an encoder's task has it
    judging = task.judging()
    known: dict[str, list[float]] = {}
    for row, expected in zip(rows, reference, strict=True):
        # An agreement that is about probes says nothing of these inputs.
        agreement = (
            {} if judging.needs_probes else {"agreement": judging.agreement(row, expected, None)}
        )
        for name, value in {**agreement, **judging.measures(row, expected)}.items():
            known.setdefault(name, []).append(value)
    return plain({name: float(np.mean(values)) for name, values in known.items()})
