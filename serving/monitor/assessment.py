"""Everything that is known of the quality of one model's variants, and what is concluded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from serving.config import ModelConfig, QualityConfig
from serving.monitor.evidence import Evidence, JudgedPair, KnownEvidence, LiveSample, ProbeStep
from serving.monitor.judge import Judge
from serving.quality.labels import LabelledScore
from serving.quality.samples import Samples
from serving.quality.verdict import judge, thresholds
from serving.seams import (
    NO_PROBES,
    Comparison,
    EvaluationProgress,
    Input,
    LabelReport,
    ModelQuality,
    Origin,
    ProbeProgress,
    Task,
    VariantQuality,
    VerdictChange,
)

SAMPLED: tuple[Origin, ...] = ("probes", "live")
PROBE_PERCENTILE = 95


@dataclass(slots=True)
class _Known:
    """What is known of one variant's artifact beside the reference's.

    Attributes:
        pair: The two artifacts; None while nobody has said what they are.
        deployed_at: When the deployment began that has this artifact.
        is_outdated: Whether there is a newer one, of which nothing is known yet.
        num_steps: Turns of probing that were taken.
        num_answered: Probes answered in them.
        seconds: What single probes took.
        waits_for: What the next turn of probing waits for, in words.
        has_failed: Whether it is up and cannot answer its probes.
    """

    windows: dict[Origin, Samples]
    pair: JudgedPair | None = None
    deployed_at: float | None = None
    is_outdated: bool = False
    labels: LabelReport | None = None
    num_steps: int = 0
    num_answered: int = 0
    seconds: list[float] = field(default_factory=list)
    waits_for: str = NO_PROBES.reason
    has_failed: bool = False


class Assessment:
    """Collects comparisons and labels of one model's variants, keeps them, and concludes.

    Args:
        config: Of the model.
        task: Its entry in the table.
        judge: Gets and compares answers.
        probes: What the judge asks, in the same order.
        evidence: Where all of it is kept.
        data_set: Digest of the labelled data; None without any.
        on_comparison: Told of each variant, origin and comparison.
    """

    def __init__(
        self,
        config: ModelConfig,
        task: Task,
        judge: Judge,
        probes: Sequence[Input],
        evidence: Evidence,
        data_set: str | None,
        on_comparison: Callable[[str, Origin, Comparison], None],
    ) -> None:
        self.model = config.name
        self.reference = config.reference
        self.task = task
        self.judge = judge
        self.evaluation: EvaluationProgress | None = None
        if config.quality.dataset is not None:
            self.evaluation = EvaluationProgress("idle", 0, 0, "")
        self._task_name = config.task
        self._max_tokens = config.max_tokens
        self._config = config.quality
        self._probes = probes
        self._evidence = evidence
        self._data_set = data_set
        self._on_comparison = on_comparison
        self._variants = tuple(variant.name for variant in config.variants)
        self._floor, self._tolerance = thresholds(task, config.quality)
        self._known = {variant: self._nothing() for variant in self._variants}
        self._last_verdicts: dict[str, VerdictChange] = {}
        self._live_inputs: deque[Input] = deque(maxlen=config.quality.keep_samples)

    @property
    def config(self) -> QualityConfig:
        """How the model is judged."""
        return self._config

    @property
    def reference_first(self) -> list[str]:
        """Every variant, the reference before the others."""
        return sorted(self._variants, key=lambda variant: variant != self.reference)

    def deployed_at(self, variant: str) -> float | None:
        """When the deployment began whose artifact is known; None if there is none, or a newer."""
        known = self._known[variant]
        return None if known.is_outdated else known.deployed_at

    def knows(self, variant: str) -> bool:
        """Whether the model has such a variant."""
        return variant in self._known

    def next_step(self, variant: str) -> int | None:
        """The next turn of probing; None if there is no more."""
        known = self._known[variant]
        is_done = known.has_failed or known.num_steps >= self.judge.num_steps(variant)
        return None if is_done else known.num_steps

    def is_comparable(self, variant: str) -> bool:
        """Whether the reference has answered what the variant's probes are compared with."""
        reference = self._known[self.reference]
        return variant == self.reference or (
            self.deployed_at(self.reference) is not None
            and reference.num_answered >= self.judge.num_probes(self.reference)
        )

    def set_waiting(self, variant: str, reason: str) -> None:
        """Take it that the probes of a variant wait; an empty reason says that they do not."""
        self._known[variant].waits_for = reason

    def outdate(self, variant: str) -> None:
        """Take in no more comparisons of a variant until it is known what was deployed.

        What is concluded of the last one stands until then. Without a reference there is nothing
        to compare with, so a new one outdates all.
        """
        for name in self._variants if variant == self.reference else (variant,):
            self._known[name].is_outdated = True

    async def identify(self, variant: str, deployed_at: float, artifact: str) -> None:
        """Take it that a deployment has an artifact; the reference comes before the others.

        What is known of the artifact counts on; what is known of another one does not any more,
        and after another one of the reference nothing of any variant does.
        """
        pair = self._pair(variant, artifact)
        if self._known[variant].pair != pair or self._known[variant].has_failed:
            found = await self._evidence.known(pair, self.judge.probe_set, self._data_set)
            if self._pair(variant, artifact) != pair:
                return  # there is another reference by now
            self._begin(variant, pair, found)
        known = self._known[variant]
        known.deployed_at, known.is_outdated = deployed_at, False
        await self._note_verdict(variant)

    async def take_step(self, variant: str, step: ProbeStep) -> None:
        """Take what came of the next turn of probing."""
        pair = self._known[variant].pair
        assert pair is not None
        self._count_step(variant, step)
        for comparison in step.comparisons:
            self._on_comparison(variant, "probes", comparison)
        await self._evidence.add_step(pair, self.judge.probe_set, step)
        await self._note_verdict(variant)

    async def set_failed(self, variant: str) -> None:
        """Take it that a variant could answer no probe: it agrees in nothing.

        That is not kept: another start is another try.
        """
        known = self._known[variant]
        known.has_failed = True
        known.windows["probes"] = Samples("probes", self._config.keep_samples)
        for probe in self._probes:
            known.windows["probes"].add(Comparison(agreement=0.0), probe)
        await self._note_verdict(variant)

    async def record(self, variant: str, comparison: Comparison, given: Input) -> None:
        """Take a live request's; its input is kept only if the configuration asks for it."""
        known = self._known[variant]
        assert known.pair is not None
        known.windows["live"].add(comparison, given)
        self._live_inputs.append(given)
        self._on_comparison(variant, "live", comparison)
        sample = LiveSample(comparison, given)
        await self._evidence.add_live(known.pair, self.judge.probe_set, sample)
        await self._note_verdict(variant)

    async def restore_inputs(self) -> None:
        """Take back the live inputs that were kept."""
        self._live_inputs.extend(await self._evidence.live_inputs(self.model))

    @property
    def live_inputs(self) -> tuple[Input, ...]:
        """The latest ones that were compared, of any variant, the oldest first."""
        return tuple(self._live_inputs)

    async def known_scores(self, variant: str, data_set: str) -> list[LabelledScore]:
        """How the variant did on labelled examples before, from the first one on."""
        pair = self._known[variant].pair
        return [] if pair is None else await self._evidence.known_scores(pair, data_set)

    async def keep_scores(
        self, variant: str, data_set: str, first: int, scores: Sequence[LabelledScore]
    ) -> None:
        """Keep how it did on some, from the index ``first`` on, for the next time."""
        if (pair := self._known[variant].pair) is not None:
            await self._evidence.add_scores(pair, data_set, first, scores)

    async def set_labels(self, variant: str, data_set: str, labels: LabelReport) -> None:
        """Take the result of an evaluation."""
        known = self._known[variant]
        is_new = known.labels != labels
        known.labels = labels
        if is_new and known.pair is not None:
            await self._evidence.add_labels(known.pair, data_set, labels)
        await self._note_verdict(variant)

    def report(self) -> ModelQuality:
        """Conclude."""
        return ModelQuality(
            model=self.model,
            task=self._task_name,
            reference=self.reference,
            floor=self._floor,
            tolerance=self._tolerance,
            evaluation=self.evaluation,
            variants=tuple(self._report(variant) for variant in self._variants),
            not_kept=self._evidence.not_kept,
        )

    def _pair(self, variant: str, artifact: str) -> JudgedPair:
        """A variant's artifact beside the reference's, which is known or is this one."""
        reference = self._known[self.reference].pair
        reference_artifact = artifact if variant == self.reference else ""
        if variant != self.reference and reference is not None:
            reference_artifact = reference.artifact
        return JudgedPair(
            self.model, variant, artifact, self.reference, reference_artifact, self._max_tokens
        )

    def _nothing(self) -> _Known:
        return _Known({origin: Samples(origin, self._config.keep_samples) for origin in SAMPLED})

    def _begin(self, variant: str, pair: JudgedPair, found: KnownEvidence) -> None:
        """Begin with what is known of a pair, and with nothing of those that depended on it."""
        for name in self._variants if variant == self.reference else (variant,):
            self.judge.forget(name)
            self._known[name] = self._nothing()
        known = self._known[variant]
        known.pair, known.labels = pair, found.labels
        for step in found.steps:
            self._count_step(variant, step)
        for sample in found.live:
            known.windows["live"].add(sample.comparison, sample.input)
        known.windows["live"].count_earlier(found.num_live - len(found.live))
        if found.last_verdict is not None:
            self._last_verdicts.setdefault(variant, found.last_verdict)

    def _count_step(self, variant: str, step: ProbeStep) -> None:
        known = self._known[variant]
        self.judge.take(variant, step)
        last = known.num_answered + step.answered
        compared = self._probes[last - len(step.comparisons) : last]
        for comparison, probe in zip(step.comparisons, compared, strict=True):
            known.windows["probes"].add(comparison, probe)
        known.num_steps, known.num_answered = step.number + 1, last
        if step.seconds is not None:
            known.seconds.append(step.seconds)

    async def _note_verdict(self, variant: str) -> None:
        """Keep the verdict if it is another one than before, or of another artifact."""
        pair = self._known[variant].pair
        if variant == self.reference or pair is None:
            return
        report, last = self._report(variant), self._last_verdicts.get(variant)
        is_same = (
            last.verdict == report.verdict
            and last.artifact == pair.artifact
            and last.reference_artifact == pair.reference_artifact
            if last
            else report.verdict == "not enough samples"
        )
        if is_same:
            return
        change = VerdictChange(
            at=self._evidence.now(),
            variant=variant,
            artifact=pair.artifact,
            reference_artifact=pair.reference_artifact,
            verdict=report.verdict,
            reason=report.reason,
            in_auto=report.in_auto,
            origins=report.origins,
            labels=report.labels,
        )
        self._last_verdicts[variant] = change
        await self._evidence.add_verdict(pair, change)

    def _progress(self, variant: str) -> ProbeProgress:
        known, total = self._known[variant], self.judge.num_probes(variant)
        done = known.num_answered
        if known.has_failed:
            return ProbeProgress("failed", done, total, "does not answer its probes")
        if known.num_steps >= self.judge.num_steps(variant):
            return ProbeProgress("done", done, total, "")
        far = f"probing {done} of {total}" if done < total else "timing single answers"
        if known.waits_for:
            reason = f"{far}: {known.waits_for}" if done else known.waits_for
            return ProbeProgress("waiting", done, total, reason)
        return ProbeProgress("probing", done, total, far)

    def _report(self, variant: str) -> VariantQuality:
        known, probes = self._known[variant], self._progress(variant)
        percentile = np.percentile(known.seconds, PROBE_PERCENTILE) if known.seconds else None
        probe_p95_s = None if percentile is None else float(percentile)
        artifact = known.pair.artifact if known.pair else ""
        if variant == self.reference:
            return VariantQuality(
                variant=variant,
                is_reference=True,
                verdict="indistinguishable",
                reason="the reference: the others are judged against it",
                in_auto=True,
                quality_low=1.0,
                origins=(),
                labels=known.labels,
                worst=(),
                probe_p95_s=probe_p95_s,
                artifact=artifact,
                probes=probes,
            )
        reports = (window.report() for window in known.windows.values())
        origins = tuple(report for report in reports if report is not None)
        judgement = judge(origins, known.labels, self._floor, self._tolerance)
        if judgement.verdict == "not enough samples" and probes.reason:
            judgement = judgement._replace(reason=probes.reason)
        kept = [sample for window in known.windows.values() for sample in window.worst]
        kept.sort(key=lambda sample: sample.agreement)
        return VariantQuality(
            variant=variant,
            is_reference=False,
            verdict=judgement.verdict,
            reason=judgement.reason,
            in_auto=judgement.in_auto,
            quality_low=judgement.quality_low,
            origins=origins,
            labels=known.labels,
            worst=tuple(kept[: self._config.keep_samples]),
            probe_p95_s=probe_p95_s,
            artifact=artifact,
            probes=probes,
        )
