"""Encoders: rows of the probes, rows of samples, labels, as the tasks of the table judge them."""

import numpy as np
import pytest

from serving.errors import InvalidField
from serving.monitor import encoder_judge
from serving.monitor.background import Background
from serving.monitor.encoder_judge import TIMED_PROBES, EncoderJudge
from serving.monitor.evidence import ProbeStep
from serving.monitor.judge import NotComparable
from serving.quality.dataset import Example
from serving.seams import AnswerOptions, EncodedSample, EncoderJudging, InferenceRequest
from serving.tasks import TASKS
from tests.unit.fakes.backends import FakeBackends, served_model

PROBES = tuple(f"probe number {number}" for number in range(12))


def judge(task: str) -> tuple[EncoderJudge, FakeBackends]:
    backends = FakeBackends([served_model("model", task, ("fp32", "int4"), "fp32", "fp32")])
    # The variant answers as the reference does, until a test breaks it.
    reference = backends.encoders["model", "fp32"].engine
    backends.encoders["model", "int4"].engine.variant = reference.variant
    return EncoderJudge(Background(backends), "model", "fp32", judging(task), PROBES), backends


def judging(task: str) -> EncoderJudging:
    of_task = TASKS[task].judging
    assert of_task is not None
    return of_task()


async def probe(subject: EncoderJudge, variant: str) -> list[ProbeStep]:
    """Have a variant answer all of its turns."""
    steps = []
    for number in range(subject.num_steps(variant)):
        steps.append(await subject.probe(variant, number))
        subject.take(variant, steps[-1])
    return steps


async def sampled(backends: FakeBackends, text: str, dimensions: int | None) -> EncodedSample:
    outcome = await backends.encoders["model", "int4"].infer(
        InferenceRequest((text,), False, AnswerOptions(dimensions), 10)
    )
    return EncodedSample("model", "int4", text, False, AnswerOptions(dimensions), outcome.rows[0])


@pytest.mark.parametrize("task", ["embeddings", "classification"])
async def test_a_variant_that_answers_as_the_reference_agrees(task: str) -> None:
    subject, backends = judge(task)
    assert (await probe(subject, "fp32"))[0].comparisons == ()
    batch, *singles = await probe(subject, "int4")
    assert [one.agreement for one in batch.comparisons] == [1.0] * len(PROBES)
    assert (batch.answered, batch.seconds) == (len(PROBES), None)
    assert [(one.answered, one.comparisons) for one in singles] == [(0, ())] * TIMED_PROBES
    assert all(one.seconds is not None and one.seconds > 0 for one in singles)
    asked = [request.inputs for request in backends.encoders["model", "int4"].requests]
    assert asked[0] == PROBES
    assert [len(inputs) for inputs in asked[1:]] == [1] * TIMED_PROBES
    assert {inputs[0] for inputs in asked[1:]} <= set(PROBES)
    comparison = await subject.compare(await sampled(backends, "a text", None))
    assert comparison.agreement == 1.0
    if task == "embeddings":
        assert comparison.measures["cosine"] == pytest.approx(1.0, abs=1e-12)
    else:
        assert comparison.measures["divergence"] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("task", ["embeddings", "classification"])
async def test_a_variant_that_answers_at_random_does_not(task: str) -> None:
    subject, backends = judge(task)
    backends.encoders["model", "int4"].engine.variant = "broken"
    await probe(subject, "fp32")
    batch, *_ = await probe(subject, "int4")
    assert np.mean([one.agreement for one in batch.comparisons]) < 0.95
    comparison = await subject.compare(await sampled(backends, "a text", None))
    measures = comparison.measures
    assert measures.get("cosine", 0.0) < 0.9999 or measures["divergence"] > 0


async def test_a_shortened_embedding_is_compared_with_a_shortened_one() -> None:
    subject, backends = judge("embeddings")
    await probe(subject, "fp32")
    await probe(subject, "int4")
    comparison = await subject.compare(await sampled(backends, "a text", 3))
    assert comparison.measures["cosine"] == pytest.approx(1.0, abs=1e-12)
    assert comparison.agreement == 1.0


async def test_embeddings_are_not_compared_before_the_probes_are_answered() -> None:
    subject, backends = judge("embeddings")
    await probe(subject, "fp32")
    with pytest.raises(NotComparable, match="model:int4"):
        await subject.compare(await sampled(backends, "a text", None))


async def test_many_probes_are_asked_in_several_batches_and_compared_at_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoder_judge, "BATCH", 5)
    subject, _ = judge("embeddings")
    await probe(subject, "fp32")
    steps = (await probe(subject, "int4"))[:-TIMED_PROBES]
    assert [(step.answered, len(step.comparisons)) for step in steps] == [(5, 0), (5, 0), (2, 12)]
    assert [one.agreement for one in steps[-1].comparisons] == [1.0] * len(PROBES)


async def test_what_was_kept_of_the_probes_is_enough_to_go_on() -> None:
    first, backends = judge("embeddings")
    kept = {variant: await probe(first, variant) for variant in ("fp32", "int4")}
    again = EncoderJudge(Background(backends), "model", "fp32", judging("embeddings"), PROBES)
    for variant, steps in kept.items():
        for step in steps:
            again.take(variant, step)
    assert again.probe_set == first.probe_set
    comparison = await again.compare(await sampled(backends, "a text", None))
    assert comparison.agreement == 1.0
    again.forget("int4")
    with pytest.raises(NotComparable):
        await again.compare(await sampled(backends, "a text", None))


def test_other_probes_are_another_set() -> None:
    subject, backends = judge("embeddings")
    other = EncoderJudge(Background(backends), "model", "fp32", judging("embeddings"), PROBES[:-1])
    assert other.probe_set != subject.probe_set


async def test_labels_are_met_or_not() -> None:
    subject, backends = judge("classification")
    texts = ["one", "two", "three", "four"]
    outcome = await Background(backends).infer(("model", "int4"), texts, 10)
    said = [outcome.labels[int(row.argmax())] for row in outcome.rows]
    other = {"negative": "positive", "positive": "negative"}
    examples = [
        Example(input=text, label=label if text != "two" else other[label])
        for text, label in zip(texts, said, strict=True)
    ]
    scores = await subject.score("int4", examples)
    assert [(score.value, score.count) for score in scores] == [(1, 1), (0, 1), (1, 1), (1, 1)]


async def test_labels_that_the_model_does_not_know_are_named() -> None:
    subject, _ = judge("classification")
    with pytest.raises(InvalidField, match=r"great.*negative, positive"):
        await subject.score("int4", [Example(input="one", label="great")])
