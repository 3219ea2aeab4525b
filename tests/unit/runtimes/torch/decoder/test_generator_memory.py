"""What preparing and opening a generator occupy, seen from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.matrix import takes_all
from tests.unit.runtimes.tiny_generators import TORCH_RECIPES, save_generator

ROOT = Path(__file__).parents[5]

MEASURED = TORCH_RECIPES if takes_all() else ["fp32", "int8-dynamic", "int4"]
"""One of each way to lie in memory, unless all are wanted."""

# The tiny model goes first, so that libraries and their buffers are there before measuring; so do
# first tokens. Slots are short: the cache would be all that is new otherwise.
CHILD = """
import asyncio, json, sys
from pathlib import Path
from serving.cores import UnsharedCores
from serving.machine.process_memory import private_bytes, resident_bytes
from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.seams import *
does, recipe, tiny, large = sys.argv[1:]
options, torch = RECIPES[recipe].options(), RUNTIMES["torch"]

def prepare(name):
    folder = Path(name) / recipe
    folder.mkdir()
    request = PrepareRequest(
        Checkpoint(Path(name)), recipe, options, "generator", None, "cpu", 1, {}, (), folder
    )
    return torch.prepare(request).weights_bytes

async def open_and_run(name):
    cores = UnsharedCores(1)
    request = OpenGeneratorRequest(
        Path(name) / recipe, recipe, options, "cpu", 1, cores, 2, 2, 48
    )
    engine = torch.open_generator(request)
    async for _ in engine.generate(TokenRequest((1,) * 32, 8, frozenset(), GREEDY)):
        pass
    return engine.footprint()

if does == "prepare":
    prepare(tiny)
    before = resident_bytes()
    weights = prepare(large)
else:
    asyncio.run(open_and_run(tiny))
    before, private = resident_bytes(), private_bytes()
    weights = asyncio.run(open_and_run(large)).weights_bytes
    print(resident_bytes() - before, private_bytes() - private)
from serving.machine.process_memory import peak_resident_bytes
print(weights, peak_resident_bytes() - before)
"""


@dataclass(frozen=True)
class Grown:
    """How much a process grew by a model of 117 MB in float32, in bytes.

    Attributes:
        weights: Of the variant.
        preparing_peak: Largest growth of the process that prepares.
        peak: Largest growth of the one that opens.
        resident: Its growth after first tokens.
        private: The part of that which no other process can share.
    """

    weights: int
    preparing_peak: int
    peak: int
    resident: int
    private: int


# Growth beyond the variant's own weights, as a share of the fp32 weights: slack for malloc and what
# a step computes. The fp32 copy, or the mapped file behind it, would add 1.0; the table alone,
# which opening could forget, 0.35.
MAX_SLACK = 0.25


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Grown]:
    tiny, large = tmp_path_factory.mktemp("tiny"), tmp_path_factory.mktemp("large")
    save_generator(tiny, tie_word_embeddings=True)
    save_generator(
        large,
        vocab_size=20_000,
        hidden_size=512,
        num_attention_heads=8,
        num_key_value_heads=4,
        num_hidden_layers=6,
        intermediate_size=1536,
        tie_word_embeddings=True,
    )

    def run(does: str, recipe: str) -> list[int]:
        answer = subprocess.run(
            [sys.executable, "-c", CHILD, does, recipe, str(tiny), str(large)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
            timeout=120,
            check=True,
        )
        return [int(number) for number in answer.stdout.split()]

    found = {}
    for recipe in MEASURED:
        weights, preparing_peak = run("prepare", recipe)
        resident, private, opened_weights, peak = run("open", recipe)
        assert opened_weights == weights
        found[recipe] = Grown(weights, preparing_peak, peak, resident, private)
    return found


@pytest.mark.parametrize("recipe", MEASURED)
def test_only_its_own_weights_stay(grown: dict[str, Grown], recipe: str) -> None:
    full = grown["fp32"].weights
    assert full > 110e6
    assert grown[recipe].resident < grown[recipe].weights + MAX_SLACK * full


@pytest.mark.parametrize("recipe", MEASURED)
def test_opening_peaks_at_its_weights_and_the_file_that_is_packed(
    grown: dict[str, Grown], recipe: str
) -> None:
    assert grown[recipe].peak < 2 * grown[recipe].weights + MAX_SLACK * grown["fp32"].weights


def test_int4_weights_are_shared_with_other_processes(grown: dict[str, Grown]) -> None:
    """They serve from the mapped file."""
    assert grown["int4"].private < 0.5 * grown["int4"].weights


@pytest.mark.parametrize("recipe", MEASURED)
def test_preparing_peaks_below_two_fp32_copies_and_two_of_the_variant(
    grown: dict[str, Grown], recipe: str
) -> None:
    # At first the fp32 model, its mapped file and the variant; then the variant three times, of
    # which one is what is written and one what is opened to compare.
    found = grown[recipe]
    assert found.preparing_peak < 2 * grown["fp32"].weights + 2 * found.weights
