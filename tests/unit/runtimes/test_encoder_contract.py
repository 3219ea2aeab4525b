"""What every runtime keeps to in every recipe that it has, whichever entries the tables hold.

Bounds are each recipe's own, from its ``EncoderExpectation``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from serving.checkpoint import weight_shapes
from serving.errors import MayPass, SourceError
from serving.machine.cores import core_numbers
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.runtimes.matrix import why_not
from serving.seams import (
    Checkpoint,
    Combination,
    EncoderEngine,
    EncoderExpectation,
    SizeRequest,
)
from tests.matrix import pairs
from tests.unit.runtimes.closeness import mean_cosine
from tests.unit.runtimes.tiny_models import (
    HEADS,
    WIDTHS,
    one_row,
    open_prepared,
    padded_batch,
    prepare,
    save_model,
)

VARIANTS = [
    (runtime, recipe)
    for runtime, recipe in product(RUNTIMES, RECIPES)
    if why_not(Combination(recipe, "encoder", "cpu", "safetensors"), runtime) is None
]
CELLS = [(*variant, task) for variant, task in pairs(VARIANTS, HEADS)]


@dataclass(frozen=True)
class Opened:
    """A variant of a tiny model, prepared and opened."""

    recipe: str
    task: str
    engine: EncoderEngine
    reference: EncoderEngine
    weights_bytes: int
    estimated_bytes: int

    @property
    def expectation(self) -> EncoderExpectation:
        expectation = RECIPES[self.recipe].encoder
        assert expectation is not None, f"{self.recipe} says nothing of encoders"
        return expectation


class Shelf:
    """Opens each cell once, whichever test asks first."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.checkpoints = {task: save_model(root / task, task) for task in HEADS}
        self._opened: dict[tuple[str, str, str], Opened] = {}

    def open(self, runtime: str, recipe: str, task: str) -> Opened:
        key = (runtime, recipe, task)
        if key not in self._opened:
            self._opened[key] = self._prepare_and_open(*key)
        return self._opened[key]

    def _prepare_and_open(self, runtime: str, recipe: str, task: str) -> Opened:
        head, checkpoint = HEADS[task], self.checkpoints[task]
        folder = self._root / "artifacts" / runtime / recipe / task
        prepared = prepare(runtime, recipe, checkpoint, head, folder)
        engine = open_prepared(runtime, recipe, head, folder)
        is_reference = (runtime, recipe) == ("torch", "fp32")
        return Opened(
            recipe=recipe,
            task=task,
            engine=engine,
            reference=engine if is_reference else self.open("torch", "fp32", task).engine,
            weights_bytes=prepared.weights_bytes,
            estimated_bytes=estimated_bytes(runtime, recipe, checkpoint),
        )


def estimated_bytes(runtime: str, recipe: str, checkpoint: Checkpoint) -> int:
    shapes, options = weight_shapes(checkpoint), RECIPES[recipe].options()
    request = SizeRequest(recipe, options, "encoder", "cpu", shapes)
    return RUNTIMES[runtime].estimate(request).weights_bytes


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture
def cell(shelf: Shelf, request: pytest.FixtureRequest) -> Opened:
    return shelf.open(*request.param)


each_cell = pytest.mark.parametrize("cell", CELLS, indirect=True, ids="-".join)
each_variant = pytest.mark.parametrize(("runtime", "recipe"), VARIANTS)


@each_cell
def test_rows_agree_with_fp32_on_torch(cell: Opened) -> None:
    batch = padded_batch([5, 60, 12, 33, 8, 21, 2, 47])
    rows = cell.engine.forward(batch)
    assert rows.dtype == np.float32
    assert rows.shape == (8, WIDTHS[cell.task])
    assert mean_cosine(rows, cell.reference.forward(batch)) >= cell.expectation.cosine


@each_cell
def test_a_batch_equals_its_single_rows(cell: Opened) -> None:
    # Padding changes the order of the sums in attention, i.e. the last bits of its results; what
    # that can tip in a recipe, its expectation says.
    batch = padded_batch([40, 3, 17, 1, 40])
    together = cell.engine.forward(batch)
    alone = np.concatenate([cell.engine.forward(one_row(batch, i)) for i in range(5)])
    change = np.linalg.norm(together - alone, axis=1) / np.linalg.norm(alone, axis=1)
    assert change.max() < cell.expectation.batch_change
    assert not np.allclose(together[0], together[4], atol=0.05), "answers must differ to compare"


@each_cell
def test_rows_of_equal_length_do_not_touch_each_other(cell: Opened) -> None:
    batch = padded_batch([24] * 4)
    backwards = {name: array[::-1].copy() for name, array in batch.items()}
    rows, turned = cell.engine.forward(batch), cell.engine.forward(backwards)[::-1]
    # The same sums in the same order: only the last bits of a matrix product may depend on rows.
    change = np.linalg.norm(rows - turned, axis=1) / np.linalg.norm(rows, axis=1)
    assert change.max() < 1e-6


@each_cell
def test_rows_do_not_depend_on_the_cores(cell: Opened) -> None:
    batch = padded_batch([40, 3, 17, 1, 40])
    cores = core_numbers()
    found = []
    for used in (cores, cores[:1], cores):
        cell.engine.use_cores(used)
        found.append(cell.engine.forward(batch))
    change = np.linalg.norm(found[1] - found[0], axis=1) / np.linalg.norm(found[0], axis=1)
    # Sums may be split otherwise among threads, which is what padding does to them, too.
    assert change.max() < cell.expectation.batch_change
    assert np.array_equal(found[2], found[0])


@each_cell
def test_the_estimate_meets_the_real_size(cell: Opened) -> None:
    measured = cell.engine.footprint().weights_bytes
    # Positions and other small buffers are in no checkpoint: up to 2 % of a model so small.
    assert measured == pytest.approx(cell.estimated_bytes, rel=0.02)
    assert cell.weights_bytes == pytest.approx(measured, rel=0.02)


@each_cell
def test_the_process_is_larger_than_the_weights(cell: Opened) -> None:
    footprint = cell.engine.footprint()
    assert footprint.weights_bytes < footprint.resident_bytes <= footprint.peak_bytes
    assert 0 < footprint.private_bytes <= footprint.resident_bytes


@each_variant
def test_unknown_options_are_refused(runtime: str, recipe: str) -> None:
    with pytest.raises(ValidationError, match="no_such_option"):
        RECIPES[recipe].options(no_such_option=1)


@each_variant
def test_missing_weights_are_refused(
    shelf: Shelf, runtime: str, recipe: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=r"classifier\.bias"):
        prepare(runtime, recipe, shelf.checkpoints["embeddings"], HEADS["classification"], tmp_path)


@pytest.mark.parametrize("runtime", sorted({runtime for runtime, _ in VARIANTS}))
def test_what_was_removed_before_it_is_opened_is_no_refusal(runtime: str, tmp_path: Path) -> None:
    recipe = next(recipe for name, recipe in VARIANTS if name == runtime)
    # The next replica finds that it is gone, and has it made. A ValueError is transformers'.
    with pytest.raises((OSError, ValueError, MayPass)):
        open_prepared(runtime, recipe, HEADS["embeddings"], tmp_path)
