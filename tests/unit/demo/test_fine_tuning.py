from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from serving.config import Config
from serving.demo import DEMO_CONFIG
from serving.demo.fine_tuning import FOLDERS, fine_tune
from serving.demo.prepare import demo_directory
from serving.demo.reviews import read_reviews, split_reviews
from serving.runtimes.torch.pretrained import load_pretrained
from serving.seams import Checkpoint


def test_fine_tuning_on_grids_writes_a_checkpoint_beside_the_demos_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    train, _ = split_reviews(read_reviews())
    seen: list[tuple[int, int]] = []
    folder = fine_tune(train[:40], "int8", lambda step, steps, loss: seen.append((step, steps)))
    assert folder == demo_directory() / FOLDERS["int8"]
    assert seen == [(2, 2)]
    before = load_file(demo_directory() / "sentiment" / "model.safetensors")
    after = load_file(folder / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "bert.encoder.layer.0.attention.self.query.weight" in changed
    assert "classifier.weight" in changed
    # Tables are not trained, and are not rounded where the recipe will round them.
    assert not any(name.endswith("_embeddings.weight") for name in changed)
    load_pretrained(Checkpoint(folder), "AutoModelForSequenceClassification", torch.float32)


def test_the_config_serves_what_is_trained_beside_what_is_rounded_afterwards() -> None:
    file = DEMO_CONFIG.with_name("qat.yaml")
    [model] = Config.model_validate(yaml.safe_load(file.read_text())).models
    recipes = {
        (Path(variant.source or model.source).name, variant.recipe) for variant in model.variants
    }
    rounded = {"int8-dynamic", "int4"}
    expected = {(FOLDERS["none"], recipe) for recipe in rounded | {"fp32"}}
    expected |= {(FOLDERS["int8"], "int8-dynamic"), (FOLDERS["int4"], "int4")}
    assert expected <= recipes
    assert model.reference == "fp32"
