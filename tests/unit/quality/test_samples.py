"""The window of one origin: what it counts, forgets and keeps."""

import math

import pytest

from serving.quality.samples import MAX_WORST, WINDOW, Samples, estimates_over
from serving.quality.statistics import share
from serving.seams import Comparison, KeptSample, OriginReport


def report_of(samples: Samples) -> OriginReport | None:
    """What is reported once everything stale was estimated anew."""
    if (stale := samples.stale()) is not None:
        samples.take_estimates(estimates_over(stale))
    return samples.report()


def reported(samples: Samples) -> OriginReport:
    report = report_of(samples)
    assert report is not None
    return report


def test_there_is_no_report_before_the_first_sample() -> None:
    assert report_of(Samples("probes")) is None


def test_the_report_has_the_measures_of_its_task_and_no_others() -> None:
    samples = Samples("live")
    for agreement, log_ratio in [(1.0, 0.1), (0.5, 0.3)]:
        measures = {"divergence": 0.0, "log_perplexity_ratio": log_ratio}
        samples.add(Comparison(agreement, measures), "a text")
    report = report_of(samples)
    assert report is not None
    assert (report.origin, report.count) == ("live", 2)
    assert set(report.measures) == {"agreement", "divergence", "perplexity_ratio"}
    assert report.measures["agreement"].value == 0.75
    ratio = report.measures["perplexity_ratio"]
    # The mean of the logs, .2; resamples of two are either, or both.
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx(
        (math.exp(0.2), math.exp(0.1), math.exp(0.3))
    )
    # 2.8 · √(.25/2) = .98995
    assert report.smallest_difference == pytest.approx(0.98995, abs=1e-5)


def test_a_measure_that_some_comparisons_lack_is_over_those_that_have_it() -> None:
    samples = Samples("live")
    for comparison in (Comparison(1.0, {"cosine": 0.5}), Comparison(0.0)):
        samples.add(comparison, ("a query", "a document"))
    report = report_of(samples)
    assert report is not None
    assert (report.measures["cosine"].value, report.measures["cosine"].count) == (0.5, 1)
    assert report.measures["agreement"].count == 2


def test_estimates_are_made_anew_after_one_sample_in_fifty() -> None:
    samples = Samples("live")
    samples.add(Comparison(1.0), "a")
    assert reported(samples).measures["agreement"] == share(1, 1)
    for _ in range(99):
        samples.add(Comparison(1.0), "a")
    assert reported(samples).measures["agreement"] == share(100, 100)
    for _ in range(2):
        samples.add(Comparison(0.0), "b")
    late = reported(samples)
    assert (late.count, late.measures["agreement"]) == (102, share(100, 100))
    samples.add(Comparison(0.0), "b")
    assert reported(samples).measures["agreement"] == share(100, 103)


def test_the_window_forgets_but_the_count_does_not() -> None:
    samples = Samples("live")
    for agreement in [0.0] * 10 + [1.0] * WINDOW:
        samples.add(Comparison(agreement), "a")
    report = report_of(samples)
    assert report is not None
    assert report.count == WINDOW + 10
    assert report.measures["agreement"] == share(WINDOW, WINDOW)


def test_no_text_is_kept_unless_asked_for() -> None:
    samples = Samples("live")
    samples.add(Comparison(0.0), "secret")
    assert samples.worst == ()
    assert "secret" not in repr(vars(samples))


def test_the_worst_are_kept_worst_first_the_latest_of_equals() -> None:
    samples = Samples("live", keep=2)
    for agreement, text in [(1.0, "same"), (0.5, "b"), (0.8, "c"), (0.2, "d"), (0.5, "e")]:
        samples.add(Comparison(agreement), text)
    assert samples.worst == (KeptSample("live", "d", 0.2), KeptSample("live", "e", 0.5))


def test_never_more_of_the_worst_are_kept_than_a_report_should_hold() -> None:
    samples = Samples("live", keep=1_000)
    for number in range(MAX_WORST + 1):
        samples.add(Comparison(0.5), f"text {number}")
    assert len(samples.worst) == MAX_WORST


def test_an_answer_like_the_references_is_never_kept() -> None:
    samples = Samples("live", keep=2)
    samples.add(Comparison(1.0), "same")
    assert samples.worst == ()


def test_an_input_that_was_not_kept_is_none_of_the_worst() -> None:
    samples = Samples("live", keep=2)
    samples.add(Comparison(0.1), None)
    samples.add(Comparison(0.5), "b")
    assert samples.worst == (KeptSample("live", "b", 0.5),)
    assert reported(samples).measures["agreement"].count == 2


def test_earlier_comparisons_are_counted_and_not_estimated_over() -> None:
    samples = Samples("live")
    samples.add(Comparison(1.0), "a")
    samples.count_earlier(5)
    report = reported(samples)
    assert (report.count, report.measures["agreement"].count) == (6, 1)


def test_what_is_estimated_over_is_not_changed_by_samples_that_come_meanwhile() -> None:
    samples = Samples("live")
    samples.add(Comparison(1.0), "a")
    stale = samples.stale()
    assert stale is not None
    samples.add(Comparison(0.0), "b")
    samples.take_estimates(estimates_over(stale))
    report = samples.report()
    assert report is not None
    assert (report.count, report.measures["agreement"]) == (2, share(1, 1))
    assert samples.stale() is not None
