"""Encoders: rows of the probes, rows of samples, labels, as the tasks of the table judge them."""

import numpy as np
import pytest

from serving.errors import InvalidField
from serving.monitor.background import Background
from serving.monitor.encoder_judge import EncoderJudge
from serving.monitor.judge import NotComparable
from serving.quality.dataset import Example
from serving.seams import EncodedSample, InferenceRequest
from serving.tasks import TASKS
from tests.unit.fakes import FakeBackends, served_model

PROBES = tuple(f"probe number {number}" for number in range(12))


def judge(task: str) -> tuple[EncoderJudge, FakeBackends]:
    backends = FakeBackends([served_model("model", task, ("fp32", "int4"), "fp32", "fp32")])
    # The variant answers as the reference does, until a test breaks it.
    reference = backends.encoder("model", "fp32").engine
    backends.encoder("model", "int4").engine.variant = reference.variant
    judging = TASKS[task].judging
    assert judging is not None
    return EncoderJudge(Background(backends), "model", "fp32", judging(), PROBES), backends


async def sampled(backends: FakeBackends, text: str, dimensions: int | None) -> EncodedSample:
    outcome = await backends.encoder("model", "int4").infer(
        InferenceRequest((text,), False, dimensions, 10)
    )
    return EncodedSample("model", "int4", text, False, dimensions, outcome.rows[0])


@pytest.mark.parametrize("task", ["embeddings", "classification"])
async def test_a_variant_that_answers_as_the_reference_agrees(task: str) -> None:
    subject, backends = judge(task)
    assert (await subject.probe("fp32")).comparisons == ()
    probed = await subject.probe("int4")
    assert [one.agreement for one in probed.comparisons] == [1.0] * len(PROBES)
    assert len(probed.seconds) == len(PROBES)
    assert all(second > 0 for second in probed.seconds)
    comparison = await subject.compare(await sampled(backends, "a text", None))
    assert comparison.agreement == 1.0
    if task == "embeddings":
        assert comparison.measures["cosine"] == pytest.approx(1.0, abs=1e-12)
    else:
        assert comparison.measures["divergence"] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("task", ["embeddings", "classification"])
async def test_a_variant_that_answers_at_random_does_not(task: str) -> None:
    subject, backends = judge(task)
    backends.encoder("model", "int4").engine.variant = "broken"
    await subject.probe("fp32")
    probed = await subject.probe("int4")
    assert np.mean([one.agreement for one in probed.comparisons]) < 0.95
    comparison = await subject.compare(await sampled(backends, "a text", None))
    measures = comparison.measures
    assert measures.get("cosine", 0.0) < 0.9999 or measures["divergence"] > 0


async def test_a_shortened_embedding_is_compared_with_a_shortened_one() -> None:
    subject, backends = judge("embeddings")
    await subject.probe("fp32")
    await subject.probe("int4")
    comparison = await subject.compare(await sampled(backends, "a text", 3))
    assert comparison.measures["cosine"] == pytest.approx(1.0, abs=1e-12)
    assert comparison.agreement == 1.0


async def test_embeddings_are_not_compared_before_the_probes_are_answered() -> None:
    subject, backends = judge("embeddings")
    await subject.probe("fp32")
    with pytest.raises(NotComparable, match="model:int4"):
        await subject.compare(await sampled(backends, "a text", None))


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
