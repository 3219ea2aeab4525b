"""The verdict, over every combination of what origins and labels can say, and over long runs."""

from itertools import product
from typing import get_args

import numpy as np
import pytest

from serving.config import QualityConfig
from serving.quality.statistics import mean_of_shares, share, smallest_difference
from serving.quality.verdict import (
    MIN_SAMPLES,
    judge,
    thresholds,
)
from serving.seams import Estimate, LabelReport, Origin, OriginReport, Verdict
from serving.tasks import TASKS

FLOOR, TOLERANCE = 0.9, 0.02

AGREEMENTS: dict[str, Estimate | None] = {
    "none": None,
    "few": Estimate(0.1, 0.0, 0.2, MIN_SAMPLES - 1),
    "below floor": Estimate(0.6, 0.5, 0.89, MIN_SAMPLES),
    "at floor": Estimate(0.8, 0.7, 0.9, MIN_SAMPLES),
    "below tolerance": Estimate(0.95, 0.93, 0.97, 500),
    "at tolerance": Estimate(0.97, 0.96, 0.98, 500),
    "fine": Estimate(0.999, 0.99, 1.0, 1_000),
}
FAILING, OFF, FINE = {"below floor"}, {"at floor", "below tolerance"}, {"at tolerance", "fine"}

DIFFERENCES = {
    "none": None,
    "few": Estimate(-0.5, -0.6, -0.4, MIN_SAMPLES - 1),
    "lower": Estimate(-0.03, -0.05, -0.01, 872),
    "touching": Estimate(-0.03, -0.05, 0.0, 872),
    "higher": Estimate(0.03, 0.01, 0.05, 872),
}


def report_of(name: Origin, agreement: Estimate) -> OriginReport:
    smallest = smallest_difference(1 - agreement.value, agreement.count)
    return OriginReport(name, agreement.count, {"agreement": agreement}, smallest)


def labels(difference: Estimate | None, of_perplexity: bool = False) -> LabelReport:
    measure = Estimate(0.9, 0.88, 0.92, 872)
    smallest = None if difference is None else 0.012
    accuracy, perplexity = (None, measure) if of_perplexity else (measure, None)
    return LabelReport("reviews", accuracy, perplexity, difference, smallest)


def expected(said: set[str], difference: str, of_perplexity: bool) -> Verdict:
    if said & FAILING:
        return "failing"
    if difference not in ("none", "few"):
        return (
            "degraded"
            if difference == ("higher" if of_perplexity else "lower")
            else ("indistinguishable")
        )
    if not said & (OFF | FINE):
        return "not enough samples"
    return "degraded" if said & OFF else "indistinguishable"


@pytest.mark.parametrize("of_perplexity", [False, True])
def test_every_combination(of_perplexity: bool) -> None:
    met = set()
    for probes, live, difference in product(AGREEMENTS, AGREEMENTS, DIFFERENCES):
        given: dict[Origin, Estimate | None] = {
            "probes": AGREEMENTS[probes],
            "live": AGREEMENTS[live],
        }
        origins = [report_of(name, known) for name, known in given.items() if known]
        report = labels(DIFFERENCES[difference], of_perplexity)
        verdict, reason, in_auto, quality_low = judge(origins, report, FLOOR, TOLERANCE)
        case = (probes, live, difference)
        assert verdict == expected({probes, live}, difference, of_perplexity), case
        assert in_auto == (verdict != "failing"), case
        enough = [known.low for known in given.values() if known and known.count >= MIN_SAMPLES]
        assert quality_low == min(enough, default=None), case
        assert reason.endswith("."), case
        assert judge(origins[::-1], report, FLOOR, TOLERANCE)[0] == verdict, case
        met.add(verdict)
    assert met == set(get_args(Verdict))


def test_the_reasons_in_words() -> None:
    def reason(*origins: OriginReport, difference: Estimate | None = None) -> str:
        report = labels(difference) if difference else None
        return judge(origins, report, FLOOR, TOLERANCE).reason

    def said_by(name: Origin, agreement: str) -> OriginReport:
        known = AGREEMENTS[agreement]
        assert known is not None
        return report_of(name, known)

    assert reason() == "No samples yet; a verdict needs 50 of one origin."
    assert reason(report_of("probes", share(20, 20)), report_of("live", share(38, 38))) == (
        "A verdict needs 50 samples of one origin; there are 20 of probes, 38 of live requests: "
        "12 more of live requests would do."
    )
    assert reason(said_by("live", "below floor")) == (
        "Agreement is 0.6 (95 % interval 0.5 to 0.89) over 50 samples of live requests, "
        "below the floor of 0.9."
    )
    assert reason(said_by("probes", "below tolerance")) == (
        "Agreement is 0.95 (95 % interval 0.93 to 0.97) over 500 samples of probes, below the "
        "0.98 that is tolerated. Labelled data would tell whether the answers are worse or only "
        "different."
    )
    # 2.8 · √(.001/1000) = .0028
    assert reason(said_by("live", "fine")) == (
        "Agreement is 0.999 (95 % interval 0.99 to 1) over 1,000 samples of live requests. "
        "The smallest difference that these samples could have shown is 0.0028."
    )
    assert reason(difference=DIFFERENCES["lower"]) == (
        "Accuracy is 0.03 below the reference's (95 % interval of the difference -0.05 to -0.01) "
        "over 872 examples of reviews."
    )
    assert reason(said_by("probes", "below tolerance"), difference=DIFFERENCES["touching"]) == (
        "Accuracy minus the reference's is -0.03 (95 % interval -0.05 to +0) over 872 examples of "
        "reviews. The smallest difference that they could have shown is 0.012. Answers do differ: "
        "Agreement is 0.95 (95 % interval 0.93 to 0.97) over 500 samples of probes."
    )


def test_the_best_powered_origin_speaks_where_all_is_well() -> None:
    origins = [report_of("probes", share(64, 64)), report_of("live", share(1_999, 2_000))]
    assert "of live requests" in judge(origins, None, FLOOR, TOLERANCE).reason


def judge_share(agreeing: int, count: int) -> Verdict:
    return judge([report_of("live", share(agreeing, count))], None, FLOOR, TOLERANCE).verdict


def test_an_honest_variant_stays_indistinguishable_at_every_moment() -> None:
    """Agreement .999, looked at after each of 2,000 samples, in 2,000 runs.

    With so many disagreements, the fewer samples the worse: it is enough to judge each number of
    them at the earliest moment at which any run had it.
    """
    disagreements = np.random.default_rng(7).random((2_000, 2_000)) < 0.001
    so_far = disagreements.cumsum(axis=1)
    verdicts = {}
    for number in range(int(so_far.max()) + 1):
        earliest = int((so_far >= number).argmax(axis=1)[so_far[:, -1] >= number].min()) + 1
        count = max(earliest, MIN_SAMPLES)
        verdicts[number, count] = judge_share(count - number, count)
    assert max(number for number, _ in verdicts) >= 7  # the runs did disagree
    assert set(verdicts.values()) == {"indistinguishable"}


def test_honest_embeddings_stay_indistinguishable_whenever_they_are_looked_at() -> None:
    """Of ten neighbours .98 are the same on average; 200 runs, each looked at 40 times."""
    floor, tolerance = thresholds(TASKS["embeddings"], QualityConfig())
    overlaps = np.random.default_rng(9).binomial(10, 0.98, (200, 2_000)) / 10
    for count in np.geomspace(MIN_SAMPLES, 2_000, 40).astype(int):
        for run in overlaps[:, :count]:
            known = report_of("live", mean_of_shares(run))
            assert judge([known], None, floor, tolerance).verdict == "indistinguishable"


def test_a_sabotaged_variant_fails_within_a_hundred_samples() -> None:
    """Agreement .6 against a floor of .9; one run in a hundred may be slower."""
    agreeing = (np.random.default_rng(8).random((2_000, 100)) < 0.6).cumsum(axis=1)
    worst_that_fails = {
        count: max(k for k in range(count + 1) if share(k, count).high < FLOOR)
        for count in (MIN_SAMPLES, 75, 100)
    }
    assert judge_share(worst_that_fails[100], 100) == "failing"
    assert judge_share(worst_that_fails[100] + 1, 100) != "failing"
    seen = np.any([agreeing[:, n - 1] <= k for n, k in worst_that_fails.items()], axis=0)
    assert seen.mean() > 0.99


def test_thresholds_are_the_tasks_unless_given() -> None:
    task = TASKS["classification"]
    assert thresholds(task, QualityConfig()) == (task.floor, task.tolerance)
    assert thresholds(task, QualityConfig(floor=0.0)) == (0.0, task.tolerance)
    assert thresholds(task, QualityConfig(floor=0.5, tolerance=0.25)) == (0.5, 0.25)
