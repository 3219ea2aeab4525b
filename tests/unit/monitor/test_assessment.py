"""What is known of the variants, and when it is forgotten."""

import pytest

from serving.monitor.judge import Probed
from serving.seams import Comparison, Estimate, LabelReport
from tests.unit.monitor.fakes import PROBES, Assessed


def probed(agreement: float) -> Probed:
    return Probed((Comparison(agreement=agreement),) * len(PROBES), (0.01,) * 95 + (0.03,) * 5)


def test_nothing_is_known_before_the_first_comparison() -> None:
    quality = Assessed().of("int4")
    assert quality.verdict == "not enough samples"
    assert (quality.origins, quality.quality_low, quality.probe_p95_s) == ((), None, None)
    assert quality.in_auto


def test_the_reference_is_judged_by_nobody() -> None:
    quality = Assessed().of("fp32")
    assert (quality.is_reference, quality.verdict, quality.quality_low) == (
        True,
        "indistinguishable",
        1.0,
    )


def test_probes_that_disagree_make_a_variant_fail() -> None:
    assessed = Assessed()
    assessed.assessment.set_probed("int4", 5.0, probed(0.0))
    assessed.assessment.set_probed("bf16", 5.0, probed(1.0))
    assert assessed.of("int4").verdict == "failing"
    assert not assessed.of("int4").in_auto
    assert assessed.of("bf16").verdict == "indistinguishable"
    assert assessed.of("int4").origins[0].count == len(PROBES)
    assert [what[:2] for what in assessed.seen].count(("int4", "probes")) == len(PROBES)


def test_the_time_of_probes_is_their_95th_percentile() -> None:
    assessed = Assessed()
    assessed.assessment.set_probed("int4", 5.0, probed(1.0))
    # numpy's linear rule between the 95th and the 96th of 100 sorted values, at 94.05.
    assert assessed.of("int4").probe_p95_s == pytest.approx(0.01 + 0.05 * 0.02)


def test_a_redeployed_variant_starts_afresh_and_a_redeployed_reference_starts_all() -> None:
    assessed = Assessed()
    for variant in ("fp32", "int4", "bf16"):
        assessed.assessment.set_probed(variant, 5.0, probed(0.0))
    assessed.assessment.set_probed("int4", 6.0, probed(1.0))
    assert assessed.of("int4").origins[0].count == len(PROBES)
    assert assessed.of("int4").verdict == "indistinguishable"
    assert assessed.of("bf16").verdict == "failing"
    assessed.judge.forgotten.clear()
    assessed.assessment.set_probed("fp32", 7.0, probed(0.0))
    assert assessed.of("bf16").verdict == "not enough samples"
    assert assessed.assessment.deployed_at("bf16") is None
    assert sorted(assessed.judge.forgotten) == ["bf16", "int4"]


def test_what_was_concluded_stands_until_a_new_deployment_is_probed() -> None:
    assessed = Assessed()
    for variant in ("fp32", "int4", "bf16"):
        assessed.assessment.set_probed(variant, 5.0, probed(0.0))
    assessed.assessment.outdate("int4")
    assert assessed.assessment.deployed_at("int4") is None
    assert assessed.of("int4").verdict == "failing"
    assert assessed.assessment.deployed_at("bf16") == 5.0
    assessed.assessment.outdate("fp32")
    assert assessed.assessment.deployed_at("bf16") is None


def test_a_variant_that_answers_no_probe_agrees_in_nothing() -> None:
    assessed = Assessed()
    assessed.assessment.set_failed("int4", 5.0)
    assert assessed.of("int4").verdict == "failing"
    assert assessed.assessment.deployed_at("int4") == 5.0


def test_labelled_data_waits_to_be_run() -> None:
    assert Assessed().assessment.report().evaluation is None
    progress = Assessed(dataset="reviews.jsonl").assessment.report().evaluation
    assert progress is not None
    assert progress.state == "idle"


def test_inputs_are_kept_only_if_asked_for() -> None:
    for keep, expected in ((0, []), (2, ["bad", "worse"])):
        assessed = Assessed(keep_samples=keep)
        for text, agreement in (("good", 1.0), ("worse", 0.2), ("bad", 0.1)):
            comparison = Comparison(agreement=agreement)
            assessed.assessment.record("int4", "live", comparison, text)
        assert [kept.input for kept in assessed.of("int4").worst] == expected


def test_the_latest_live_inputs_are_kept_only_if_asked_for() -> None:
    for keep, expected in ((0, ()), (2, ("two", ("three", "four")))):
        assessed = Assessed(keep_samples=keep)
        for variant, given in (("int4", "one"), ("bf16", "two"), ("int4", ("three", "four"))):
            assessed.assessment.record(variant, "live", Comparison(agreement=1.0), given)
        assessed.assessment.record("int4", "probes", Comparison(agreement=0.0), "a probe")
        assert assessed.assessment.live_inputs == expected


def test_live_inputs_outlive_a_deployment() -> None:
    assessed = Assessed(keep_samples=2)
    assessed.assessment.record("int4", "live", Comparison(agreement=1.0), "one")
    assessed.assessment.set_probed("fp32", 7.0, probed(1.0))
    assert assessed.assessment.live_inputs == ("one",)


def test_labels_are_part_of_the_report() -> None:
    assessed = Assessed()
    labels = LabelReport("reviews", Estimate(0.7, 0.6, 0.8, 100), None, None, None)
    assessed.assessment.set_labels("int4", labels)
    assert assessed.of("int4").labels == labels
