"""Tiny checkpoints of quantized numbers, prepared with their own integers and in floats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from serving.runtimes.torch.expanding import as_floats
from serving.seams import Checkpoint, Prepared, PrepareRequest
from tests.unit.runtimes.tiny_generators import prepare_request

CHECKPOINTS = Path(__file__).parents[1] / "quantized_checkpoints" / "checkpoints"

Made = dict[tuple[str, str], tuple[Path, Prepared]]
"""Folder of an artifact and what preparing said, by checkpoint and recipe."""


def make(
    prepare: Callable[[PrepareRequest], Prepared],
    names: Iterable[str],
    recipes: Sequence[str],
    new_folder: Callable[[str], Path],
) -> Made:
    """Prepare each of the checkpoints in each of the recipes."""
    made: Made = {}
    for name in names:
        quantized = Checkpoint(CHECKPOINTS / name)
        with as_floats(quantized) as floats:
            for recipe in recipes:
                folder = new_folder(f"{name}-{recipe}")
                request = prepare_request(recipe, floats, folder)
                made[name, recipe] = folder, prepare(replace(request, quantized=quantized))
    return made
