"""Labelled data runs through every variant; progress and failures are told."""

import asyncio
import json
from pathlib import Path

import pytest

from serving.errors import DeadlineExceeded, InternalError, InvalidField, NotReady
from serving.monitor import evaluation
from serving.monitor.evaluation import evaluate
from serving.seams import EvaluationProgress
from tests.unit.fakes.waiting import MAX_WAIT_S, let_others_act
from tests.unit.monitor.fakes import Assessed


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_examples(tmp_path / "reviews.jsonl", 20)


def write_examples(file: Path, count: int) -> Path:
    lines = [{"input": f"text {number}", "label": "positive"} for number in range(count)]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return file


@pytest.fixture
async def assessed(monkeypatch: pytest.MonkeyPatch) -> Assessed:
    """Every variant has answered its probes."""
    monkeypatch.setattr(evaluation, "LOOK_S", 0.0)
    assessed = Assessed()
    await assessed.probe_all()
    return assessed


async def run(assessed: Assessed, dataset: Path) -> EvaluationProgress:
    """Evaluate, and return the progress at the end."""
    await evaluate(assessed.assessment, dataset)
    progress = (await assessed.assessment.report()).evaluation
    assert progress is not None
    return progress


async def test_every_variant_gets_its_share_of_labels(assessed: Assessed, dataset: Path) -> None:
    assessed.judge.agreements["int4"] = 0.0
    progress = await run(assessed, dataset)
    assert (progress.state, progress.done, progress.total) == ("done", 60, 60)
    reference, int4 = (await assessed.of("fp32")).labels, (await assessed.of("int4")).labels
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


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NotReady("not ready: loading"), "not ready: loading"),
        (DeadlineExceeded("no answer within 60 s"), "no answer within 60 s"),
        (InternalError("the answer is not a number"), "the answer is not a number"),
        (ValueError("a defect"), "internal error; see the log of the quality process"),
    ],
)
async def test_a_variant_that_does_not_answer_is_left_out(
    assessed: Assessed, dataset: Path, error: Exception, words: str
) -> None:
    assessed.judge.cannot_score["int4"] = error
    progress = await run(assessed, dataset)
    assert (progress.state, progress.done) == ("done", 60)
    assert progress.reason == f"int4 is left out: {words}"
    assert (await assessed.of("int4")).labels is None
    assert (await assessed.of("bf16")).labels is not None


async def test_data_that_does_not_fit_the_model_ends_it(assessed: Assessed, dataset: Path) -> None:
    assessed.judge.cannot_score["int4"] = InvalidField("the data has labels great")
    progress = await run(assessed, dataset)
    assert (progress.state, progress.reason) == ("failed", "the data has labels great")


async def test_without_the_reference_it_fails(assessed: Assessed, dataset: Path) -> None:
    assessed.judge.cannot_score["fp32"] = NotReady("sentiment:fp32 is not ready")
    progress = await run(assessed, dataset)
    assert (progress.state, progress.reason) == ("failed", "sentiment:fp32 is not ready")


async def test_a_missing_file_is_told(assessed: Assessed, tmp_path: Path) -> None:
    progress = await run(assessed, tmp_path / "nothing.jsonl")
    assert progress.state == "failed"
    assert "nothing.jsonl" in progress.reason


async def test_it_waits_until_it_is_known_what_is_deployed(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "LOOK_S", 0.0)
    assessed = Assessed()
    is_asked = asyncio.Event()
    assessed.judge.on_score = lambda variant: is_asked.set()
    evaluating = asyncio.create_task(run(assessed, dataset))
    await asyncio.wait_for(is_asked.wait(), MAX_WAIT_S)
    await let_others_act()
    assert assessed.judge.scored == [("fp32", 1)]  # is it worth waiting?
    await assessed.identify_all()
    assert (await evaluating).state == "done"
    for variant in ("fp32", "int4", "bf16"):
        assert (await assessed.of(variant)).labels is not None
    assert assessed.judge.scored[1:4] == [("fp32", 8), ("fp32", 8), ("fp32", 4)]


async def test_it_does_not_wait_for_that_for_ever(
    assessed: Assessed, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "KNOWN_S", 0.0)
    assessed.assessment.outdate("int4")
    progress = await run(assessed, dataset)
    assert progress.reason == "int4 is left out: int4 has not said within 0 s what it is"
    assert (await assessed.of("bf16")).labels is not None


async def test_what_was_answered_before_is_not_asked_again(
    assessed: Assessed, dataset: Path
) -> None:
    assessed.judge.agreements["int4"] = 0.0
    asked: list[str] = []

    def break_off(variant: str) -> None:
        asked.append(variant)
        if len(asked) == 5:  # fp32 is done, int4 has answered the first 8 examples
            raise asyncio.CancelledError

    assessed.judge.on_score = break_off
    with pytest.raises(asyncio.CancelledError):
        await evaluate(assessed.assessment, dataset)
    assert asked == ["fp32"] * 3 + ["int4"] * 2

    again = Assessed(assessed.evidence)
    again.judge.agreements["int4"] = 0.0
    await again.identify_all()
    progress = await run(again, dataset)
    assert (progress.state, progress.done) == ("done", 60)
    assert again.judge.scored == [("int4", 8), ("int4", 4), ("bf16", 8), ("bf16", 8), ("bf16", 4)]
    labels = (await again.of("int4")).labels
    assert labels is not None
    assert labels.difference is not None
    assert (labels.difference.value, labels.difference.count) == (-1.0, 20)


async def test_another_file_of_data_is_asked_anew(assessed: Assessed, dataset: Path) -> None:
    await run(assessed, dataset)
    assessed.judge.scored.clear()
    await run(assessed, dataset)
    assert assessed.judge.scored == []
    await run(assessed, write_examples(dataset, 18))
    assert len(assessed.judge.scored) == 9


async def test_results_of_a_variant_that_is_deployed_again_are_dropped(
    assessed: Assessed, dataset: Path
) -> None:
    def redeploy(variant: str) -> None:
        if variant == "bf16":
            assessed.assessment.outdate("bf16")

    assessed.judge.on_score = redeploy
    progress = await run(assessed, dataset)
    assert progress.state == "done"
    assert progress.reason == "bf16 is left out: bf16 was deployed again meanwhile"
    assert (await assessed.of("bf16")).labels is None
    assert (await assessed.of("int4")).labels is not None


@pytest.mark.parametrize("error", [None, NotReady("not ready")])
async def test_nothing_is_compared_with_a_reference_that_is_gone(
    assessed: Assessed, dataset: Path, error: Exception | None
) -> None:
    def redeploy(variant: str) -> None:
        if variant == "int4":
            assessed.assessment.outdate("fp32")

    assessed.judge.on_score = redeploy
    if error is not None:
        assessed.judge.cannot_score["int4"] = error
    progress = await run(assessed, dataset)
    assert (progress.state, progress.reason) == ("failed", "fp32 was deployed again meanwhile")
    assert (await assessed.of("int4")).labels is None
