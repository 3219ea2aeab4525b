"""What is known of the variants, what it belongs to, and when it counts no more."""

from typing import Any

import pytest

from serving.monitor.evidence import ProbeStep
from serving.seams import Comparison, Estimate, LabelReport
from tests.unit.monitor.fakes import PROBES, Assessed

LABELS = LabelReport("reviews", Estimate(0.7, 0.6, 0.8, 100), None, None, None)


async def identified(**quality: Any) -> Assessed:
    """It is known what is deployed, and nothing more."""
    assessed = Assessed(**quality)
    await assessed.identify_all()
    return assessed


async def test_nothing_is_known_before_the_first_comparison() -> None:
    quality = await (await identified()).of("int4")
    assert quality.verdict == "not enough samples"
    assert (quality.origins, quality.quality_low, quality.probe_p95_s) == ((), None, None)
    assert quality.in_auto


async def test_the_reference_is_judged_by_nobody() -> None:
    quality = await Assessed().of("fp32")
    assert (quality.is_reference, quality.verdict, quality.quality_low) == (
        True,
        "indistinguishable",
        1.0,
    )


async def test_probes_that_disagree_make_a_variant_fail() -> None:
    assessed = Assessed()
    assessed.judge.agreements["int4"] = 0.0
    await assessed.probe_all()
    assert (await assessed.of("int4")).verdict == "failing"
    assert not (await assessed.of("int4")).in_auto
    assert (await assessed.of("bf16")).verdict == "indistinguishable"
    assert (await assessed.of("int4")).origins[0].count == len(PROBES)
    assert [what[:2] for what in assessed.seen].count(("int4", "probes")) == len(PROBES)


async def test_the_time_of_probes_is_their_95th_percentile() -> None:
    assessed = Assessed()
    assessed.judge.num_turns = 20  # of .001, .002 … .020 s
    await assessed.probe_all()
    # numpy's linear rule, between the 19th and the 20th of 20 sorted values, at 18.05.
    assert (await assessed.of("int4")).probe_p95_s == pytest.approx(0.019 + 0.05 * 0.001)
    assert (await assessed.of("int4")).num_timed == 20


async def test_many_probes_at_once_tell_no_time() -> None:
    assessed = await identified()
    await assessed.assessment.take_step("int4", ProbeStep(0, 60, (Comparison(1.0),) * 60, None))
    assert (await assessed.of("int4")).probe_p95_s is None


async def test_another_artifact_starts_afresh_and_another_reference_starts_all() -> None:
    assessed = Assessed()
    assessed.judge.agreements.update(int4=0.0, bf16=0.0)
    await assessed.probe_all()
    assessed.judge.agreements["int4"] = 1.0
    await assessed.assessment.identify("int4", 6.0, "int4-2")
    await assessed.probe("int4")
    assert (await assessed.of("int4")).origins[0].count == len(PROBES)
    assert (await assessed.of("int4")).verdict == "indistinguishable"
    assert (await assessed.of("bf16")).verdict == "failing"
    assessed.judge.forgotten.clear()
    await assessed.assessment.identify("fp32", 7.0, "fp32-2")
    assert (await assessed.of("bf16")).verdict == "not enough samples"
    assert assessed.assessment.deployed_at("bf16") is None
    assert {"bf16", "int4"} <= set(assessed.judge.forgotten)


async def test_what_was_concluded_stands_until_a_new_deployment_is_known() -> None:
    assessed = Assessed()
    assessed.judge.agreements["int4"] = 0.0
    await assessed.probe_all()
    assessed.assessment.outdate("int4")
    assert assessed.assessment.deployed_at("int4") is None
    assert (await assessed.of("int4")).verdict == "failing"
    assert assessed.assessment.deployed_at("bf16") == 1.0
    assessed.assessment.outdate("fp32")
    assert assessed.assessment.deployed_at("bf16") is None


async def test_a_variant_that_answers_no_probe_agrees_in_nothing() -> None:
    assessed = await identified()
    await assessed.assessment.set_failed("int4")
    assert (await assessed.of("int4")).verdict == "failing"
    assert (await assessed.of("int4")).probes.state == "failed"
    assert assessed.assessment.next_step("int4") is None
    # Another deployment, or process, is another try.
    await assessed.assessment.identify("int4", 2.0, "int4-1")
    assert (await assessed.of("int4")).verdict == "not enough samples"
    assert assessed.assessment.next_step("int4") == 0


async def test_labelled_data_waits_to_be_run() -> None:
    assert (await Assessed().assessment.report()).evaluation is None
    progress = (await Assessed(dataset="reviews.jsonl").assessment.report()).evaluation
    assert progress is not None
    assert progress.state == "idle"


@pytest.mark.parametrize(("keep", "expected"), [(0, []), (2, ["bad", "worse"])])
async def test_inputs_are_kept_only_if_asked_for(keep: int, expected: list[str]) -> None:
    assessed = await identified(keep_samples=keep)
    for text, agreement in (("good", 1.0), ("worse", 0.2), ("bad", 0.1)):
        await assessed.assessment.record("int4", Comparison(agreement=agreement), text)
    assert [kept.input for kept in (await assessed.of("int4")).worst] == expected


@pytest.mark.parametrize(("keep", "expected"), [(0, ()), (2, ("two", ("three", "four")))])
async def test_the_latest_live_inputs_are_kept_only_if_asked_for(
    keep: int, expected: tuple[object, ...]
) -> None:
    assessed = await identified(keep_samples=keep)
    for variant, given in (("int4", "one"), ("bf16", "two"), ("int4", ("three", "four"))):
        await assessed.assessment.record(variant, Comparison(agreement=1.0), given)
    await assessed.probe("int4")
    assert assessed.assessment.live_inputs == expected


async def test_live_inputs_outlive_a_deployment() -> None:
    assessed = await identified(keep_samples=2)
    await assessed.assessment.record("int4", Comparison(agreement=1.0), "one")
    await assessed.assessment.identify("fp32", 7.0, "fp32-2")
    assert assessed.assessment.live_inputs == ("one",)


async def test_labels_are_part_of_the_report() -> None:
    assessed = await identified()
    await assessed.assessment.set_labels("int4", "the data", LABELS)
    assert (await assessed.of("int4")).labels == LABELS


async def test_a_restart_forgets_nothing() -> None:
    assessed = Assessed(keep_samples=2)
    assessed.judge.agreements["int4"] = 0.5
    await assessed.probe_all()
    await assessed.assessment.set_labels("int4", "the data", LABELS)
    for number in range(70):
        comparison = Comparison(agreement=number / 100, measures={"divergence": 0.1})
        await assessed.assessment.record("int4", comparison, f"text {number}")

    again = Assessed(assessed.evidence, keep_samples=2)
    await again.identify_all()
    await again.assessment.restore_inputs()
    for variant in ("fp32", "int4", "bf16"):
        before, after = await assessed.of(variant), await again.of(variant)
        assert (after.verdict, after.labels, after.worst) == (
            (before.verdict, before.labels, before.worst)
        )
        assert (after.artifact, after.probe_p95_s) == (before.artifact, before.probe_p95_s)
        assert [one.count for one in after.origins] == [one.count for one in before.origins]
        assert again.assessment.next_step(variant) is None
    assert again.assessment.live_inputs == ("text 68", "text 69")
    assert again.judge.taken == assessed.judge.taken
    assert again.seen == []  # counted once, by the process that compared


async def test_evidence_of_another_artifact_or_reference_or_limit_does_not_count() -> None:
    assessed = Assessed()
    await assessed.probe_all()
    for artifacts in ({"int4": "int4-2"}, {"fp32": "fp32-2"}):
        again = Assessed(assessed.evidence)
        await again.identify_all(**artifacts)
        assert (await again.of("int4")).verdict == "not enough samples"
        assert again.assessment.next_step("int4") == 0
    other = Assessed(assessed.evidence)
    other.judge.probe_set = "other probes"
    await other.identify_all()
    assert other.assessment.next_step("int4") == 0
    # What was known before comes back with its artifact.
    back = Assessed(assessed.evidence)
    await back.identify_all()
    assert (await back.of("int4")).verdict == "indistinguishable"


async def test_every_change_of_a_verdict_is_in_the_history_with_its_grounds() -> None:
    assessed = Assessed()
    await assessed.probe_all()
    assessed.evidence.time = 2_000.0
    for _ in range(60):
        await assessed.assessment.record("int4", Comparison(agreement=0.0), "a text")
    again = Assessed(assessed.evidence)
    assessed.evidence.time = 3_000.0
    await again.identify_all(int4="int4-2")

    changes = (await again.evidence.history(0.0))["sentiment"]
    assert [(one.at, one.variant, one.verdict) for one in changes] == [
        (1_000.0, "int4", "indistinguishable"),
        (1_000.0, "bf16", "indistinguishable"),
        (2_000.0, "int4", "failing"),
        (3_000.0, "int4", "not enough samples"),
    ]
    failing = changes[2]
    assert (failing.artifact, failing.reference_artifact) == ("int4-1", "fp32-1")
    assert "below the floor" in failing.reason
    assert not failing.in_auto
    by_origin = {report.origin: report.measures["agreement"] for report in failing.origins}
    assert by_origin["probes"].value == 1.0
    assert by_origin["live"].high < 0.9
    assert changes[3].artifact == "int4-2"
    assert (await again.evidence.history(2_500.0))["sentiment"] == changes[3:]
