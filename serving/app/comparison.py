"""The classic experiment: every variant of a model over the same texts, one after the other."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.app.plan import Plan, PlannedVariant
from serving.errors import ConfigError
from serving.quality.agreement import cosine_similarities, same_label_share
from serving.quality.dataset import Example
from serving.replica.encoder.batching import pad, split_by_length
from serving.replica.encoder.loading import MAX_BATCH_TOKENS, load
from serving.tasks import GENERATION_TASKS


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one variant did with the texts.

    Attributes:
        rows: Its answers, (texts, width).
        labels: Name of each column of a classification.
        elapsed_s: Seconds to tokenize and answer every text, loading left out.
        load_s: Seconds to load.
        weights_bytes: Packed size of its weights.
        resident_bytes: Resident memory of its process after the run.
        disk_bytes: Size of its weights when saved; see ``Footprint``.
    """

    rows: NDArray[np.float32]
    labels: tuple[str, ...]
    elapsed_s: float
    load_s: float
    weights_bytes: int
    resident_bytes: int
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class Row:
    """One variant's line of the comparison.

    Attributes:
        variant: Its name.
        accuracy: Share of labels met; None where the data has none.
        agreement: Mean cosine to the reference (embeddings), or share of texts with the
            reference's label (classification).
        measurement: The rest.
    """

    variant: str
    accuracy: float | None
    agreement: float
    measurement: Measurement


def compare(plan: Plan, model: str, examples: Sequence[Example]) -> Iterator[Row]:
    """Measure every variant of ``model`` on ``examples``, the reference first.

    Each variant runs in a process of its own, so that its memory is its own.

    Raises:
        ConfigError: The model is unknown or generates, has no such labels, or a variant cannot be
            loaded.
    """
    variants = [planned for planned in plan.variants if planned.model.name == model]
    if not variants:
        known = dict.fromkeys(planned.model.name for planned in plan.variants)
        raise ConfigError(f"unknown model {model!r}; configured: {', '.join(known)}")
    if variants[0].model.task in GENERATION_TASKS:
        raise ConfigError(
            f"model {model!r} generates; only models that embed or classify can be compared so far"
        )
    variants.sort(key=lambda planned: planned.variant.name != planned.model.reference)
    texts = [example.input for example in examples]
    reference: NDArray[np.float32] | None = None
    for planned in variants:
        measurement = _measure_alone(planned, texts)
        if reference is None:
            reference = measurement.rows
        yield Row(
            variant=planned.variant.name,
            accuracy=_accuracy(measurement, examples),
            agreement=_agreement(measurement, reference),
            measurement=measurement,
        )


def measure(planned: PlannedVariant, texts: Sequence[str]) -> Measurement:
    """Load one variant in this process and answer every text; over-long ones are cut."""
    loaded = load(planned.model, planned.variant, planned.checkpoint)
    task, engine = loaded.task, loaded.engine
    max_batch_tokens = planned.variant.max_batch_tokens or MAX_BATCH_TOKENS[engine.device]
    started = time.perf_counter()
    token_ids = task.encode(texts, True)
    rows = np.empty((len(texts), task.width), np.float32)
    for batch in split_by_length([len(ids) for ids in token_ids], max_batch_tokens):
        rows[batch] = engine.forward(pad([token_ids[index] for index in batch], task.max_tokens))
    elapsed = time.perf_counter() - started
    footprint = engine.footprint()
    return Measurement(
        rows=task.decode(rows, None),
        labels=task.labels,
        elapsed_s=elapsed,
        load_s=loaded.load_seconds,
        weights_bytes=footprint.weights_bytes,
        resident_bytes=footprint.resident_bytes,
        disk_bytes=footprint.disk_bytes,
    )


def _measure_alone(planned: PlannedVariant, texts: Sequence[str]) -> Measurement:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
        try:
            return process.submit(measure, planned, texts).result()
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


def _agreement(measurement: Measurement, reference: NDArray[np.float32]) -> float:
    if measurement.labels:
        return same_label_share(measurement.rows, reference)
    return float(cosine_similarities(measurement.rows, reference).mean())
