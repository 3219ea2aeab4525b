"""Labelled data runs through every variant; progress and failures are told."""

import json
from pathlib import Path

import pytest

from serving.errors import NotReady
from serving.monitor.evaluation import evaluate
from tests.unit.monitor.fakes import Assessed


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    file = tmp_path / "reviews.jsonl"
    lines = [{"input": f"text {number}", "label": "positive"} for number in range(20)]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return file


async def test_every_variant_gets_its_share_of_labels(dataset: Path) -> None:
    assessed = Assessed()
    assessed.judge.agreements["int4"] = 0.0
    await evaluate(assessed.assessment, "classification", dataset)
    progress = assessed.assessment.report().evaluation
    assert progress is not None
    assert (progress.state, progress.done, progress.total) == ("done", 60, 60)
    reference, int4 = assessed.of("fp32").labels, assessed.of("int4").labels
    assert reference is not None
    assert int4 is not None
    assert reference.accuracy is not None
    assert int4.accuracy is not None
    assert (reference.dataset, reference.accuracy.value, reference.difference) == (
        "reviews",
        1.0,
        None,
    )
    assert int4.accuracy.value == 0.0
    assert int4.difference is not None
    assert int4.difference.value == -1.0


async def test_a_variant_that_does_not_answer_is_left_out(dataset: Path) -> None:
    assessed = Assessed()
    assessed.judge.unready = "int4"
    await evaluate(assessed.assessment, "classification", dataset)
    progress = assessed.assessment.report().evaluation
    assert progress is not None
    assert (progress.state, progress.done, progress.reason) == ("done", 60, "int4 is not ready")
    assert assessed.of("int4").labels is None
    assert assessed.of("bf16").labels is not None


async def test_a_failure_is_told(dataset: Path) -> None:
    assessed = Assessed()
    assessed.judge.failures = [NotReady("sentiment:fp32 is not ready")]
    await evaluate(assessed.assessment, "classification", dataset)
    progress = assessed.assessment.report().evaluation
    assert progress is not None
    assert (progress.state, progress.reason) == ("failed", "sentiment:fp32 is not ready")


async def test_a_missing_file_is_told(tmp_path: Path) -> None:
    assessed = Assessed()
    await evaluate(assessed.assessment, "classification", tmp_path / "nothing.jsonl")
    progress = assessed.assessment.report().evaluation
    assert progress is not None
    assert progress.state == "failed"
    assert "nothing.jsonl" in progress.reason
