"""Everything that is known of the quality of one model's variants, and what is concluded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from serving.config import ModelConfig, QualityConfig
from serving.monitor.evidence import Evidence, JudgedPair, KnownEvidence, LiveSample, ProbeStep
from serving.monitor.judge import Judge
from serving.monitor.variant_evidence import VariantEvidence
from serving.monitor.verdict_changes import verdict_change
from serving.quality.labels import LabelledScore
from serving.quality.verdict import thresholds
from serving.seams import (
    Comparison,
    EvaluationProgress,
    Input,
    LabelReport,
    ModelQuality,
    Origin,
    Task,
    VariantQuality,
    VerdictChange,
)


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
        self._known = {variant: self._nothing(variant) for variant in self._variants}
        self._estimating = asyncio.Lock()
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
        return self._known[variant].next_step

    def is_comparable(self, variant: str) -> bool:
        """Whether the reference has answered what the variant's probes are compared with."""
        progress = self._known[self.reference].progress
        return variant == self.reference or (
            self.deployed_at(self.reference) is not None and progress.done >= progress.total
        )

    def set_waiting(self, variant: str, reason: str) -> None:
        """Take it that the probes of a variant wait; an empty reason says that they do not."""
        self._known[variant].waits_for = reason

    def outdate(self, variant: str) -> None:
        """Take in no more comparisons of a variant until it is known what was deployed.

        What is concluded of the last one stands until then. Without a reference there is nothing
        to compare with, so a new one outdates all.
        """
        for name in self._depending(variant):
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
        self._known[variant].take_step(step)
        for comparison in step.comparisons:
            self._on_comparison(variant, "probes", comparison)
        await self._evidence.add_step(pair, self.judge.probe_set, step)
        await self._note_verdict(variant)

    async def set_failed(self, variant: str) -> None:
        """Take it that a variant could answer no probe: it agrees in nothing.

        That is not kept: another start is another try.
        """
        self._known[variant].fail()
        await self._note_verdict(variant)

    async def record(self, variant: str, comparison: Comparison, given: Input) -> None:
        """Take a live request's; its input is kept only if the configuration asks for it."""
        known = self._known[variant]
        assert known.pair is not None
        known.take_live(comparison, given)
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

    async def report(self) -> ModelQuality:
        """Conclude."""
        for variant in self._variants:
            await self._estimate(self._known[variant])
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

    def _nothing(self, variant: str) -> VariantEvidence:
        return VariantEvidence(variant, self.judge, self._probes, self._config.keep_samples)

    def _begin(self, variant: str, pair: JudgedPair, found: KnownEvidence) -> None:
        """Begin with what is known of a pair, and with nothing of those that depended on it."""
        for name in self._depending(variant):
            self.judge.forget(name)
            self._known[name] = self._nothing(name)
        self._known[variant].restore(pair, found)
        if found.last_verdict is not None:
            self._last_verdicts.setdefault(variant, found.last_verdict)

    def _depending(self, variant: str) -> tuple[str, ...]:
        """What is known only as long as an artifact of ``variant`` stands."""
        return self._variants if variant == self.reference else (variant,)

    async def _note_verdict(self, variant: str) -> None:
        """Keep the verdict if it has changed."""
        known = self._known[variant]
        pair = known.pair
        if variant == self.reference or pair is None:
            return
        await self._estimate(known)
        if self._known[variant] is not known:
            return  # there is another artifact by now
        last, now = self._last_verdicts.get(variant), self._evidence.now()
        if (change := verdict_change(last, pair, self._report(variant), now)) is not None:
            self._last_verdicts[variant] = change
            await self._evidence.add_verdict(pair, change)

    async def _estimate(self, known: VariantEvidence) -> None:
        async with self._estimating:  # so that no older estimates take the place of newer ones
            await known.estimate()

    def _report(self, variant: str) -> VariantQuality:
        known = self._known[variant]
        if variant == self.reference:
            return known.of_reference()
        return known.conclude(self._floor, self._tolerance)
