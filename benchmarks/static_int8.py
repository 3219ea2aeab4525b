"""How much of MiniLM's and the classifier's answers ``int8-static`` keeps, by runtime and strength.

Run as ``python -m benchmarks.static_int8`` after ``python -m serving.demo.prepare``. Each row is an
artifact with a floor (``min_agreement``): what it prints is what ``prepare`` measured against fp32
on torch, on review sentences that nothing calibrated with, before it installed the artifact.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.conditions import conditions
from benchmarks.demo_variants import REVIEWS, SOURCE, prepare_variant
from benchmarks.encoders import CLASSIFIER

NUM_SENTENCES = 1_000
"""Of them 200 are held out, and 300 of the others calibrate."""

FLOOR = 0.01
"""Nothing is refused: the number is what is asked for."""

WAYS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "torch": ("int8-static", "torch", {}),
    "torch smooth 0.5": ("int8-static", "torch", {"smooth": 0.5}),
    "torch smooth 0.8": ("int8-static", "torch", {"smooth": 0.8}),
    "openvino": ("int8-static", "openvino", {}),
    "onnxruntime": ("int8-static", "onnxruntime", {}),
    "litert": ("int8-static", "litert", {}),
    "torch dynamic": ("int8-dynamic", "torch", {}),
}
"""Recipe, runtime and options, by what a row is called."""

MODELS = {"minilm": ("embeddings", SOURCE), "sentiment": ("classification", CLASSIFIER)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    arguments = parser.parse_args()
    print(conditions(arguments.threads))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "reviews.jsonl")
        lines = REVIEWS.read_text(encoding="utf-8").splitlines()
        spread = lines[:: len(lines) // NUM_SENTENCES][:NUM_SENTENCES]
        sentences = [line.split("\t")[2] for line in spread]
        file.write_text("".join(json.dumps({"input": one}) + "\n" for one in sentences))
        print("\n| model | way | measure | value | held-out inputs |\n|---|---|---|---|---|")
        for model in arguments.models:
            for way in arguments.ways:
                print(row(model, way, file, arguments.threads), flush=True)


def row(model: str, way: str, file: Path, threads: int) -> str:
    """Prepare one and say what was measured."""
    task, source = MODELS[model]
    recipe, runtime, options = WAYS[way]
    _, artifact = prepare_variant(
        way.replace(" ", "-"),
        threads,
        task,
        source,
        recipe=recipe,
        runtime=runtime,
        options=options,
        min_agreement=FLOOR,
        calibration={"data": str(file)},
    )
    found = artifact.manifest.agreement
    assert found is not None  # or there had been no floor
    return (
        f"| `{model}` | `{recipe}`, {way} | {found.measure} | {found.value:.4f} | {found.inputs} |"
    )


if __name__ == "__main__":
    main()
