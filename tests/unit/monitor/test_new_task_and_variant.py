"""A task and variants that nothing here knows: being registered is enough to be judged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.config import ModelConfig
from serving.monitor.assessment import Assessment
from serving.monitor.background import Background
from serving.monitor.judges import judge_of
from serving.seams import NO_OPTIONS, EncodedSample, InferenceRequest
from serving.tasks import TASKS
from tests.unit.fakes.backends import FakeBackends, served_model
from tests.unit.monitor.fakes import EvidenceAtOnce
from tests.unit.monitor.made_up_task import NAME, PROBES, installed, write_probes

VARIANTS = ("fp32", "bf16", "int8-ov", "my-own", "gptq-from-elsewhere")


@pytest.fixture(autouse=True)
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with installed(tmp_path, monkeypatch):
        yield


async def test_it_is_probed_compared_and_judged_by_its_entry(tmp_path: Path) -> None:
    model = ModelConfig.model_validate(
        {
            "name": "pairs",
            "task": NAME,
            "source": "nowhere",
            "variants": list(VARIANTS),
            "quality": {"keep_samples": 3},
        }
    )
    backends = FakeBackends([served_model("pairs", NAME, VARIANTS, "my-own", "fp32")])
    for variant in VARIANTS[:-1]:  # the last one answers something else
        backends.encoders["pairs", variant].engine.variant = "the same"
    file = tmp_path / "pairs.jsonl"
    write_probes(file)
    task = TASKS[NAME]
    probes = task.read_probes(file)
    judge = judge_of(Background(backends), model, task, probes)
    assessment = Assessment(
        model, task, judge, probes, EvidenceAtOnce(model), None, lambda *comparison: None
    )

    for variant in assessment.reference_first:
        await assessment.identify(variant, 1.0, f"{variant}-1")
        while (number := assessment.next_step(variant)) is not None:
            await assessment.take_step(variant, await judge.probe(variant, number))
    report = await assessment.report()
    assert (report.task, report.floor, report.tolerance) == (NAME, 0.125, 0.0625)
    verdicts = {one.variant: one.verdict for one in report.variants}
    assert verdicts == dict.fromkeys(VARIANTS, "indistinguishable") | {VARIANTS[-1]: "failing"}
    (origin,) = report.variants[3].origins
    assert set(origin.measures) == {"agreement", "growth"}
    assert origin.measures["growth"].value == 1.0  # of logarithms that are 0
    assert report.variants[-1].worst[0].input in PROBES

    pair = ("a query", "a document")
    engine = backends.encoders["pairs", "my-own"]
    row = (await engine.infer(InferenceRequest((pair,), False, NO_OPTIONS, 10))).rows[0]
    sample = EncodedSample("pairs", "my-own", pair, False, NO_OPTIONS, row)
    comparison = await judge.compare(sample)
    assert comparison.agreement == 1.0
    await assessment.record("my-own", comparison, pair)
    assert assessment.live_inputs == (pair,)
