"""Real checkpoints are measured before they are installed: tiny random ones, on real runtimes."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, BertModel

from serving.app.plan import make_plan
from serving.artifacts import Artifact, ArtifactRequest, ArtifactStore, ensure, key_of
from serving.artifacts.build import build
from serving.artifacts.calibration import read_held_out
from serving.artifacts.manifest import read_manifest
from serving.artifacts.order import BuildOrder
from serving.errors import ConfigError
from serving.settings import load_config
from tests.matrix import takes_all
from tests.unit.artifacts.opened import opened
from tests.unit.runtimes.tiny_generators import random_model
from tests.unit.runtimes.tiny_models import save_model
from tests.unit.tasks.tiny_checkpoints import TOKENIZERS

COUNT = 60


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Sixty random texts of 4 to 30 letters."""
    random = np.random.default_rng(0)
    letters = np.array([*string.ascii_lowercase, " "])
    lines = ["".join(random.choice(letters, random.integers(4, 30))) for _ in range(COUNT)]
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"input": f"a{line}z"}) + "\n" for line in lines))
    return file


def write_config(folder: Path, task: str, texts: Path, least: float, **variant: Any) -> Path:
    asked = {"name": "small", **variant, "min_agreement": least}
    model = {
        "name": "tiny",
        "task": task,
        "source": str(folder),
        "variants": [{**asked, "calibration": {"data": str(texts)}}],
    }
    file = folder / "config.yaml"
    file.write_text(json.dumps({"models": [model]}))
    return file


def rows_of(artifact: Artifact, texts: tuple) -> np.ndarray:
    """What an artifact answers, one text at a time."""
    task, engine = opened(artifact)
    rows = [engine.forward(task.collate(task.prepare([text], False))) for text in texts]
    return task.decode(np.concatenate(rows))


def rows_of_transformers(folder: Path, texts: tuple) -> np.ndarray:
    """Likewise the float32 model, by transformers."""
    model, tokenizer = BertModel.from_pretrained(folder).eval(), TOKENIZERS["bert"]()
    with torch.no_grad():
        hidden = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state for text in texts]
    return np.stack([one.mean(1).numpy()[0] for one in hidden])


@pytest.mark.parametrize(
    ("runtime", "recipe"),
    [("torch", "int8-dynamic"), ("onnxruntime", "int8-static"), ("litert", "int8-static")]
    if takes_all()
    else [("torch", "int8-dynamic")],
)
def test_an_encoder_is_installed_if_it_reaches_its_floor(
    tmp_path: Path, texts: Path, runtime: str, recipe: str
) -> None:
    folder, store = tmp_path / "bert", ArtifactStore(tmp_path / "store")
    save_model(folder, "embeddings")
    TOKENIZERS["bert"]().save_pretrained(folder)
    form = {"recipe": recipe, "runtime": runtime}
    [planned] = make_plan(
        load_config(write_config(folder, "embeddings", texts, 0.9, **form))
    ).variants
    artifact = ensure(planned.artifact, store)
    agreement = artifact.manifest.agreement
    assert agreement is not None
    assert (agreement.measure, agreement.reference) == ("cosine", "fp32 on torch")
    assert planned.artifact.floor is not None
    held_out = read_held_out("embeddings", planned.artifact.floor.origin)
    assert agreement.inputs == len(held_out) == COUNT // 5
    rows, expected = rows_of(artifact, held_out), rows_of_transformers(folder, held_out)
    cosines = (rows * expected).sum(1) / (
        np.linalg.norm(rows, axis=1) * np.linalg.norm(expected, axis=1)
    )
    assert 0.98 < cosines.mean() < 1 - 1e-5  # or nothing was rounded
    # In batches 8-bit activations round a little otherwise than alone.
    assert agreement.value == pytest.approx(cosines.mean(), abs=1e-4)

    out_of_reach = write_config(folder, "embeddings", texts, 1, **form)
    [planned] = make_plan(load_config(out_of_reach)).variants
    store.remove(artifact.id)
    with pytest.raises(ConfigError, match=f"{agreement.value:.4f} over 12 held-out inputs of text"):
        ensure(planned.artifact, store)
    assert key_of(planned.artifact, store).id == artifact.id
    assert artifact.id not in store.ids()


def build_here(
    request: ArtifactRequest, store: ArtifactStore, reference: Path | None = None
) -> Path:
    """Do in this process what the one does that prepares; returns the artifact's folder."""
    key = key_of(request, store)
    folder = store.folder / key.id
    folder.mkdir()
    build(BuildOrder(request=request, key=key, folder=folder, threads=1, reference=reference))
    return folder


def first_choices(folder: Path, texts: list[list[int]]) -> list[int]:
    """The most probable token at each place of each text but its first, by transformers."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        return [
            token
            for text in texts
            for token in model(torch.tensor([text])).logits[0, :-1].argmax(-1).tolist()
        ]


def test_a_generator_is_measured_by_its_first_choices(tmp_path: Path, texts: Path) -> None:
    """The variant is another checkpoint in float32, so that transformers can tell what it says."""
    folder, other = tmp_path / "llama", tmp_path / "other"
    tokenizer = TOKENIZERS["gpt2"]()
    for place, spread in ((folder, 0.0), (other, 0.01)):
        model = random_model(model_type="llama")
        torch.manual_seed(1)
        for parameter in model.parameters():
            parameter.data += spread * torch.randn_like(parameter)
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
    asked = {"recipe": "fp32", "source": str(other)}
    file = write_config(folder, "generation", texts, 0.05, **asked)
    [planned] = make_plan(load_config(file)).variants
    store = ArtifactStore(tmp_path / "store")
    assert planned.artifact.floor is not None
    reference = build_here(planned.artifact.floor.reference, store)
    built = build_here(planned.artifact, store, reference)
    agreement = read_manifest(built).agreement
    assert agreement is not None
    held_out = [
        tokenizer(text).input_ids
        for text in read_held_out("generation", planned.artifact.floor.origin)
    ]
    same = np.equal(first_choices(folder, held_out), first_choices(other, held_out))
    assert 0.2 < same.mean() < 0.95  # or it could not be told from another share
    # Of some 200 places one may be a tie, which another order of float32 sums breaks otherwise.
    assert agreement.value == pytest.approx(same.mean(), abs=1.5 / len(same))
    assert (agreement.measure, agreement.inputs) == ("agreement", COUNT // 5)
