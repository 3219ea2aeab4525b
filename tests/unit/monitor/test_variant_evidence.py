"""How far a variant's probes are, and what its samples are of."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from serving.monitor import variant_evidence
from serving.monitor.evidence import JudgedPair, KnownEvidence, LiveSample, ProbeStep
from serving.monitor.variant_evidence import VariantEvidence
from serving.quality.samples import estimates_over
from serving.quality.statistics import share
from serving.seams import Comparison, Estimate, KeptSample
from tests.unit.monitor.fakes import PROBES, FakeJudge

PAIR = JudgedPair("sentiment", "int4", "int4-1", "fp32", "fp32-1", None)


def evidence(keep: int = 0, num_turns: int = 1) -> VariantEvidence:
    judge = FakeJudge()
    judge.num_turns = num_turns
    return VariantEvidence("int4", judge, PROBES, keep)


def step(number: int, *agreements: float, answered: int | None = None) -> ProbeStep:
    comparisons = tuple(Comparison(agreement) for agreement in agreements)
    return ProbeStep(number, len(comparisons) if answered is None else answered, comparisons, 0.1)


@pytest.mark.parametrize(
    ("steps", "waits_for", "expected"),
    [
        ([], "waits for its reference", ("waiting", 0, "waits for its reference")),
        ([], "", ("probing", 0, "probing 0 of 60")),
        ([step(0, *[1.0] * 31)], "", ("probing", 31, "probing 31 of 60")),
        (
            [step(0, *[1.0] * 31)],
            "not ready: loading",
            ("waiting", 31, "probing 31 of 60: not ready: loading"),
        ),
        ([step(0, *[1.0] * 60)], "", ("probing", 60, "timing single answers")),
        ([step(0, *[1.0] * 60), step(1)], "not ready: loading", ("done", 60, "")),
    ],
)
def test_it_says_how_far_its_probes_are(
    steps: list[ProbeStep], waits_for: str, expected: tuple[str, int, str]
) -> None:
    known = evidence(num_turns=2)
    known.waits_for = waits_for
    for one in steps:
        known.take_step(one)
    assert (known.progress.state, known.progress.done, known.progress.reason) == expected
    assert known.progress.total == len(PROBES)


def test_a_comparison_is_of_the_probe_that_was_answered() -> None:
    known = evidence(keep=3, num_turns=3)
    known.take_step(step(0, 1.0, 0.5))
    known.take_step(step(1, 0.25))
    worst = known.conclude(0.9, 0.02).worst
    assert worst == (KeptSample("probes", PROBES[2], 0.25), KeptSample("probes", PROBES[1], 0.5))


def test_comparisons_that_come_after_several_answers_are_of_all_of_them() -> None:
    known = evidence(keep=1, num_turns=3)
    known.take_step(step(0, answered=2))
    known.take_step(step(1, 1.0, 0.5, 1.0, answered=1))
    assert known.conclude(0.9, 0.02).worst == (KeptSample("probes", PROBES[1], 0.5),)


async def test_earlier_samples_than_those_of_the_window_are_counted() -> None:
    known = evidence()
    live = (LiveSample(Comparison(1.0), None),) * 3
    found = KnownEvidence((), live, 10, None, None)
    known.restore(PAIR, found)
    await known.estimate()
    (report,) = known.conclude(0.9, 0.02).origins
    assert (report.origin, report.count, report.measures["agreement"].count) == ("live", 10, 3)


async def test_a_verdict_that_samples_suffice_for_does_not_wait_for_all_probes() -> None:
    known = evidence(num_turns=2)
    known.waits_for = ""
    known.take_step(step(0, *[1.0] * 55))
    await known.estimate()
    concluded = known.conclude(0.9, 0.02)
    assert concluded.verdict == "indistinguishable"
    assert "55 samples" in concluded.reason
    assert concluded.probes.reason == "probing 55 of 60"


async def test_estimates_are_made_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def watched(comparisons: Sequence[Comparison]) -> dict[str, Estimate]:
        threads.append(threading.current_thread())
        return estimates_over(comparisons)

    monkeypatch.setattr(variant_evidence, "estimates_over", watched)
    known = evidence()
    known.take_step(step(0, *[1.0] * 60))
    await known.estimate()
    assert known.conclude(0.9, 0.02).origins[0].measures["agreement"] == share(60, 60)
    assert len(threads) == 1
    assert threading.main_thread() not in threads
    await known.estimate()
    assert len(threads) == 1  # nothing is new
