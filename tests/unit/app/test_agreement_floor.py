"""What a configuration's ``min_agreement`` is measured on and against, before anything is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from serving.seams import Checkpoint
from tests.unit.app.planning import plan_of, refusal
from tests.unit.conftest import WriteConfig

pytestmark = pytest.mark.usefixtures("paper")

MEBIBYTE = 1024**2
KEY = "models[0].variants[0].min_agreement: "


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(f'{{"input": "text {n}"}}\n' for n in range(60)))
    return file


def measured(data: str, recipe: str = "folded", runtime: str = "paper", more: str = "") -> str:
    return (
        f"[{{name: v, recipe: {recipe}, runtime: {runtime}, min_agreement: 0.98, "
        f"calibration: {{data: {data}}}{more}}}]"
    )


def test_a_floor_is_planned_with_its_data_and_its_reference(
    write_config: WriteConfig, texts: Path, checkpoint_folder: Path
) -> None:
    [planned] = plan_of(write_config(measured(str(texts)))).variants
    floor = planned.artifact.floor
    assert floor is not None
    assert floor.least == 0.98
    assert (floor.origin.path, floor.origin.name) == (texts, "texts.jsonl")
    assert floor.origin.holds_out
    reference = floor.reference
    assert (reference.recipe, reference.runtime) == ("fp32", "torch")
    assert reference.checkpoint == Checkpoint(checkpoint_folder)
    assert reference.floor is None
    assert planned.artifact.calibration is None
    # The larger of both is open beside what preparing has left; torch's prepares in more.
    assert planned.artifact.preparing_bytes >= max(22 * MEBIBYTE, reference.preparing_bytes)


def test_a_recipe_that_calibrates_holds_the_same_data_out(
    write_config: WriteConfig, texts: Path
) -> None:
    [planned] = plan_of(write_config(measured(str(texts), "measured"))).variants
    assert planned.artifact.floor is not None
    assert planned.artifact.calibration == planned.artifact.floor.origin


def test_without_a_floor_nothing_is_held_out(write_config: WriteConfig, texts: Path) -> None:
    entry = f"[{{name: measured, runtime: paper, calibration: {{data: {texts}}}}}]"
    [planned] = plan_of(write_config(entry)).variants
    assert planned.artifact.floor is None
    assert planned.artifact.calibration is not None
    assert not planned.artifact.calibration.holds_out


def test_the_reference_is_made_of_the_models_own_source(
    write_config: WriteConfig, texts: Path, tmp_path: Path, checkpoint_folder: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_bytes((checkpoint_folder / "config.json").read_bytes())
    save_file({"layer.weight": np.ones((4, 4), np.float32)}, other / "model.safetensors")
    entry = measured(str(texts), more=f", source: {other}")
    [planned] = plan_of(write_config(entry, "letters")).variants
    assert planned.artifact.checkpoint == Checkpoint(other)
    assert planned.artifact.floor is not None
    assert planned.artifact.floor.reference.checkpoint == Checkpoint(checkpoint_folder)


def test_a_model_that_names_no_data_is_told_what_to_add(write_config: WriteConfig) -> None:
    told = refusal(write_config("[{name: folded, runtime: paper, min_agreement: 0.9}]"))
    assert told == (
        f"{KEY}model 'tiny' names no data to measure it on. Add calibration: {{data: FILE}} to the "
        "variant (data: probes takes those of the package), or quality.dataset or quality.probes "
        "to the model"
    )


@pytest.mark.parametrize("recipe", ["folded", "measured"])
def test_data_with_too_few_inputs_are_told_to_be_so(
    write_config: WriteConfig, texts: Path, recipe: str
) -> None:
    texts.write_text("".join(texts.read_text().splitlines(keepends=True)[:49]))
    told = refusal(write_config(measured(str(texts), recipe)))
    assert told.startswith(f"{KEY}texts.jsonl has 49 different inputs; 50 are needed")


def test_the_packages_probes_are_taken_where_the_entry_says_so(write_config: WriteConfig) -> None:
    [planned] = plan_of(write_config(measured("probes"))).variants
    assert planned.artifact.floor is not None
    assert planned.artifact.floor.origin.name == "probes"


def test_what_others_are_measured_against_needs_no_floor(
    write_config: WriteConfig, texts: Path
) -> None:
    told = refusal(write_config(measured(str(texts), "fp32", "torch")))
    assert told == f"{KEY}fp32 on torch is what others are measured against. Remove it"


def test_a_count_of_inputs_that_nothing_calibrates_with_is_refused(
    write_config: WriteConfig, texts: Path
) -> None:
    told = refusal(write_config(measured(f"{texts}, count: 9")))
    assert told.startswith("models[0].variants[0].calibration.count: recipe 'folded' measures no")


@pytest.mark.parametrize("value", ["0", "1.01", "true", "high"])
def test_a_floor_is_a_share(write_config: WriteConfig, value: str) -> None:
    told = refusal(write_config(f"[{{name: folded, runtime: paper, min_agreement: {value}}}]"))
    assert "variants[0].min_agreement" in told
