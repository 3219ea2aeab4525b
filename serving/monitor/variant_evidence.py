"""What is known of one artifact of a variant beside one of the reference, and what follows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from serving.monitor.evidence import JudgedPair, KnownEvidence, ProbeStep
from serving.monitor.judge import Judge
from serving.quality.samples import Samples, estimates_over
from serving.quality.verdict import judge
from serving.seams import (
    NO_PROBES,
    Comparison,
    Input,
    LabelReport,
    Origin,
    ProbeProgress,
    VariantQuality,
)

SAMPLED: tuple[Origin, ...] = ("probes", "live")
PROBE_PERCENTILE = 95


class VariantEvidence:
    """Begins with nothing; its owner says what it is of.

    Args:
        variant: Public name.
        judge: Says how many probes there are, and remembers what it needs of their answers.
        probes: What the judge asks, in the same order.
        keep: Worst comparisons whose inputs are kept.

    Attributes:
        pair: The two artifacts; None while nobody has said what they are.
        deployed_at: When the deployment began that has this artifact.
        is_outdated: Whether there is a newer one, of which nothing is known yet.
        labels: The latest result on labelled data.
        waits_for: What the next turn of probing waits for, in words.
        has_failed: Whether the variant is up and cannot answer its probes.
    """

    def __init__(self, variant: str, judge: Judge, probes: Sequence[Input], keep: int) -> None:
        self.pair: JudgedPair | None = None
        self.deployed_at: float | None = None
        self.is_outdated = False
        self.labels: LabelReport | None = None
        self.waits_for = NO_PROBES.reason
        self.has_failed = False
        self._variant = variant
        self._judge = judge
        self._probes = probes
        self._keep = keep
        self._windows = {origin: Samples(origin, keep) for origin in SAMPLED}
        self._num_steps = 0
        self._num_answered = 0
        self._seconds: list[float] = []
        """What single probes took."""

    def restore(self, pair: JudgedPair, found: KnownEvidence) -> None:
        """Take what was known of a pair before."""
        self.pair, self.labels = pair, found.labels
        for step in found.steps:
            self.take_step(step)
        for sample in found.live:
            self.take_live(sample.comparison, sample.input)
        self._windows["live"].count_earlier(found.num_live - len(found.live))

    def take_step(self, step: ProbeStep) -> None:
        """Take what came of the next turn of probing."""
        self._judge.take(self._variant, step)
        self._num_steps = step.number + 1
        self._num_answered += step.answered
        if step.seconds is not None:
            self._seconds.append(step.seconds)
        begin = self._num_answered - len(step.comparisons)
        compared = self._probes[begin : self._num_answered]
        for comparison, probe in zip(step.comparisons, compared, strict=True):
            self._windows["probes"].add(comparison, probe)

    def take_live(self, comparison: Comparison, given: Input | None) -> None:
        """Take a live request's; ``given`` is None if its input was not kept."""
        self._windows["live"].add(comparison, given)

    def fail(self) -> None:
        """Take it that the variant agrees in no probe, since it cannot answer them."""
        self.has_failed = True
        self._windows["probes"] = Samples("probes", self._keep)
        for probe in self._probes:
            self._windows["probes"].add(Comparison(agreement=0.0), probe)

    @property
    def next_step(self) -> int | None:
        """The next turn of probing; None if there is no more."""
        is_done = self.has_failed or self._num_steps >= self._judge.num_steps(self._variant)
        return None if is_done else self._num_steps

    @property
    def progress(self) -> ProbeProgress:
        """How far the probes are."""
        done, total = self._num_answered, self._judge.num_probes(self._variant)
        if self.has_failed:
            return ProbeProgress("failed", done, total, "does not answer its probes")
        if self.next_step is None:
            return ProbeProgress("done", done, total, "")
        far = f"probing {done} of {total}" if done < total else "timing single answers"
        if self.waits_for:
            reason = f"{far}: {self.waits_for}" if done else self.waits_for
            return ProbeProgress("waiting", done, total, reason)
        return ProbeProgress("probing", done, total, far)

    def of_reference(self) -> VariantQuality:
        """The report of the reference, which is judged by nobody."""
        return VariantQuality(
            variant=self._variant,
            is_reference=True,
            verdict="indistinguishable",
            reason="the reference: the others are judged against it",
            in_auto=True,
            quality_low=1.0,
            origins=(),
            labels=self.labels,
            worst=(),
            probe_p95_s=self._probe_p95_s,
            artifact=self._artifact,
            probes=self.progress,
            num_timed=len(self._seconds),
        )

    async def estimate(self) -> None:
        """Make the estimates anew that have become stale, in a thread.

        Resampling thousands of samples would hold up whoever else wants something of this process.
        """
        for window in self._windows.values():
            if (samples := window.stale()) is not None:
                window.take_estimates(await asyncio.to_thread(estimates_over, samples))

    def conclude(self, floor: float, tolerance: float) -> VariantQuality:
        """The report of any other variant, by its latest estimates; see ``judge``."""
        reports = (window.report() for window in self._windows.values())
        origins = tuple(report for report in reports if report is not None)
        judgement, probes = judge(origins, self.labels, floor, tolerance), self.progress
        reason = judgement.reason
        if judgement.verdict == "not enough samples" and probes.reason:
            reason = probes.reason
        kept = [sample for window in self._windows.values() for sample in window.worst]
        kept.sort(key=lambda sample: sample.agreement)
        return VariantQuality(
            variant=self._variant,
            is_reference=False,
            verdict=judgement.verdict,
            reason=reason,
            in_auto=judgement.in_auto,
            quality_low=judgement.quality_low,
            origins=origins,
            labels=self.labels,
            worst=tuple(kept[: self._keep]),
            probe_p95_s=self._probe_p95_s,
            artifact=self._artifact,
            probes=probes,
            num_timed=len(self._seconds),
        )

    @property
    def _artifact(self) -> str:
        return self.pair.artifact if self.pair else ""

    @property
    def _probe_p95_s(self) -> float | None:
        if not self._seconds:
            return None
        return float(np.percentile(self._seconds, PROBE_PERCENTILE))
