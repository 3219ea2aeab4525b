"""Which verdicts are news."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serving.monitor.evidence import JudgedPair
from serving.monitor.verdict_changes import verdict_change
from serving.seams import VariantQuality, VerdictChange

PAIR = JudgedPair("sentiment", "int4", "int4-1", "fp32", "fp32-1", None)
REPORT = VariantQuality("int4", False, "degraded", "because", True, 0.8, (), None, (), None)


def change(report: VariantQuality = REPORT, pair: JudgedPair = PAIR) -> VerdictChange:
    made = verdict_change(None, pair, report, 1.0)
    assert made is not None
    return made


def test_the_first_verdict_is_news_and_the_lack_of_one_is_not() -> None:
    made = change()
    assert (made.at, made.variant, made.verdict, made.reason) == (
        (1.0, "int4", "degraded", "because")
    )
    unknown = replace(REPORT, verdict="not enough samples")
    assert verdict_change(None, PAIR, unknown, 1.0) is None


def test_another_reason_for_the_same_verdict_is_no_news() -> None:
    assert verdict_change(change(), PAIR, replace(REPORT, reason="more samples"), 2.0) is None


@pytest.mark.parametrize(
    ("report", "pair"),
    [
        (replace(REPORT, verdict="failing"), PAIR),
        (replace(REPORT, verdict="not enough samples"), PAIR),
        (REPORT, replace(PAIR, artifact="int4-2")),
        (REPORT, replace(PAIR, reference_artifact="fp32-2")),
    ],
)
def test_another_verdict_or_artifact_is(report: VariantQuality, pair: JudgedPair) -> None:
    made = verdict_change(change(), pair, report, 2.0)
    assert made is not None
    assert (made.at, made.verdict) == (2.0, report.verdict)
    assert (made.artifact, made.reference_artifact) == (pair.artifact, pair.reference_artifact)
