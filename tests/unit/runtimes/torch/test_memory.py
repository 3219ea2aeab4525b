"""What opening and preparing take, seen from outside, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from serving.checkpoint import weight_shapes
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.seams import Checkpoint, SizeRequest
from tests.matrix import takes_all
from tests.unit.runtimes.tiny_models import TORCH_ENCODERS, save_model

ROOT = Path(__file__).parents[4]

MEASURED = TORCH_ENCODERS if takes_all() else ["fp32", "int8-static", "int4"]
"""One of each way to lie in memory, unless all are wanted."""

PACKED_RECIPES = {"int8-dynamic", "int8-static", "int8-outlier"}
"""fbgemm's kernels need layouts of their own: private copies. All others run on the mapped file."""

SCRATCH_BYTES = 25e6
"""Activations of one small batch and what malloc keeps of them: 5 MB were measured, and 13 where a
CPU that multiplies no bfloat16 expands a layer of 4 MB at each call. The fp32 copy of the model
would be 185 MB, the bf16 one 92."""

# The tiny model goes first, so that libraries and their buffers are there before measuring.
PREPARE = """
import json, sys
from pathlib import Path
from serving.machine.process_memory import peak_resident_bytes, resident_bytes
from serving.seams import Checkpoint
from tests.unit.runtimes.tiny_models import HEADS, padded_batch, prepare
recipe, tiny, large, root = sys.argv[1:]
head, data = HEADS["embeddings"], [padded_batch([30, 30], seed) for seed in range(4)]
prepare("torch", recipe, Checkpoint(Path(tiny)), head, Path(root, "tiny"), calibration=data)
before = resident_bytes()
prepare("torch", recipe, Checkpoint(Path(large)), head, Path(root, "large"), calibration=data)
print(json.dumps(peak_resident_bytes() - before))
"""

OPEN = """
import json, sys
from pathlib import Path
from serving.machine.process_memory import private_bytes, resident_bytes
from tests.unit.runtimes.tiny_models import HEADS, open_prepared, padded_batch
recipe, root = sys.argv[1:]
batch, head = padded_batch([30, 30]), HEADS["embeddings"]
open_prepared("torch", recipe, head, Path(root, "tiny")).forward(batch)
resident, private = resident_bytes(), private_bytes()
engine = open_prepared("torch", recipe, head, Path(root, "large"))
engine.forward(batch)
footprint = engine.footprint()
print(json.dumps([footprint.weights_bytes, footprint.resident_bytes - resident,
                  footprint.private_bytes - private, footprint.peak_bytes - resident]))
"""


@dataclass(frozen=True)
class Grown:
    """Growth of processes by a model of 185 MB in float32, in bytes."""

    estimated: int
    preparing_peak: int
    weights: int
    resident: int
    private: int
    peak: int


def run_child(code: str, *arguments: object) -> str:
    child = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=240,
        check=True,
    )
    return child.stdout


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Grown]:
    """What each recipe took."""
    root = tmp_path_factory.mktemp("memory")
    save_model(root / "tiny", "embeddings")
    large = save_model(
        root / "large",
        "embeddings",
        vocab_size=40_000,
        hidden_size=512,
        num_hidden_layers=8,
        intermediate_size=2048,
    )
    return {recipe: measure(recipe, root, large) for recipe in MEASURED}


def measure(recipe: str, root: Path, large: Checkpoint) -> Grown:
    folder = root / "artifacts" / recipe
    peak = run_child(PREPARE, recipe, root / "tiny", large.folder, folder)
    request = SizeRequest(recipe, RECIPES[recipe].options(), "encoder", "cpu", weight_shapes(large))
    estimate = RUNTIMES["torch"].estimate(request)
    return Grown(
        estimate.preparing_bytes - estimate.process_bytes,
        json.loads(peak),
        *json.loads(run_child(OPEN, recipe, folder)),
    )


@pytest.mark.parametrize("recipe", MEASURED)
def test_only_its_own_weights_are_resident(grown: dict[str, Grown], recipe: str) -> None:
    it = grown[recipe]
    # Less than the weights is right: rows of the table that no text needs, and what fbgemm's
    # padding reserves, take no memory.
    assert it.resident < it.weights + SCRATCH_BYTES


@pytest.mark.parametrize("recipe", MEASURED)
def test_weights_are_shared_where_the_kernels_allow(grown: dict[str, Grown], recipe: str) -> None:
    it = grown[recipe]
    assert it.private < SCRATCH_BYTES + (it.weights if recipe in PACKED_RECIPES else 0)


@pytest.mark.parametrize("recipe", MEASURED)
def test_opening_needs_little_more_than_serving(grown: dict[str, Grown], recipe: str) -> None:
    it = grown[recipe]
    # The layers' 8-bit weights are in the mapped file and in fbgemm's layout while it is open.
    passing = it.weights if recipe in PACKED_RECIPES else 0
    assert it.peak < it.weights + passing + SCRATCH_BYTES


@pytest.mark.parametrize("recipe", MEASURED)
def test_preparing_takes_what_is_estimated(grown: dict[str, Grown], recipe: str) -> None:
    it = grown[recipe]
    assert it.preparing_peak < 1.1 * it.estimated


def test_float32_is_the_whole_model(grown: dict[str, Grown]) -> None:
    assert grown["fp32"].weights > 180e6
