"""Files that a configuration names: what to calibrate with, and what to judge variants by."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import ConfigError
from tests.unit.app.planning import TWO, plan_of, refusal
from tests.unit.conftest import WriteConfig

pytestmark = pytest.mark.usefixtures("paper")

MEASURED = "{name: measured, runtime: paper, calibration: %s}"
LINES = "".join(f'{{"input": "{word}", "label": "b"}}\n' for word in "abcdefghijklm")
PROBES = "".join(f'{{"input": "{word}"}}\n' for word in "abcdefghijklm")


@pytest.mark.parametrize(
    ("data", "quality", "name", "file"),
    [
        ("{}", "{}", "probes", None),
        ("{data: probes}", "{probes: P, dataset: D}", "probes", "P"),
        ("{count: 5}", "{probes: P, dataset: D}", "dataset", "D"),
        ("{data: dataset}", "{dataset: D}", "dataset", "D"),
        ("{data: P}", "{dataset: D}", "P", "P"),
    ],
)
def test_inputs_to_calibrate_with_are_found(
    write_config: WriteConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    data: str,
    quality: str,
    name: str,
    file: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("P").write_text(PROBES)
    Path("D.jsonl").write_text(LINES)
    config = write_config(f"[{MEASURED % data}]", "classification")
    with_quality(config, quality.replace("D", "D.jsonl"))
    origin = plan_of(config).variants[0].artifact.calibration
    assert origin is not None
    assert origin.name == name
    assert origin.is_labelled == (name == "dataset")
    assert origin.path == (tmp_path / file.replace("D", "D.jsonl") if file else None)
    assert origin.count == (5 if "count" in data else 300)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("dataset", "model 'tiny' has no quality.dataset"),
        ("none.jsonl", "none.jsonl; give probes, dataset, or a file of the form"),
    ],
)
def test_inputs_to_calibrate_with_that_are_not_there_name_their_key(
    write_config: WriteConfig, data: str, said: str
) -> None:
    told = refusal(write_config(f"[{MEASURED % f'{{data: {data}}}'}]"))
    assert told.startswith("models[0].variants[0].calibration.data: ")
    assert said in told


def with_quality(file: Path, quality: str) -> Path:
    file.write_text(file.read_text().replace("name: tiny", f"name: tiny, quality: {quality}"))
    return file


@pytest.mark.parametrize(
    ("task", "key", "content", "said"),
    [
        ("embeddings", "probes", '{"input": "a"}', r"lines\.jsonl: 1 probes; at least 11"),
        ("embeddings", "dataset", '{"input": "a"}', "no labels"),
        ("classification", "dataset", '{"input": "a"}', r"lines\.jsonl: no labels"),
        ("generation", "dataset", '{"input": "a"}', "line 1: prompt: Field required"),
        ("generation", "dataset", None, r"lines\.jsonl: cannot be read"),
    ],
)
def test_a_wrong_file_to_judge_variants_by_names_its_key(
    write_config: WriteConfig, tmp_path: Path, task: str, key: str, content: str | None, said: str
) -> None:
    data = tmp_path / "lines.jsonl"
    if content is not None:
        data.write_text(content)
    config = with_quality(write_config("[fp32]", task), f"{{{key}: {data}}}")
    with pytest.raises(ConfigError, match=rf"models\[0\]\.quality\.{key}: .*{said}"):
        plan_of(config)


def test_good_files_to_judge_variants_by_are_let_through(
    write_config: WriteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "probes.jsonl").write_text('{"input": "a"}\n' * 11)
    (tmp_path / "data.jsonl").write_text('{"input": "a", "label": "b"}')
    quality = "{probes: ~/probes.jsonl, dataset: ~/data.jsonl}"
    assert plan_of(with_quality(write_config(TWO, "classification"), quality)).variants
