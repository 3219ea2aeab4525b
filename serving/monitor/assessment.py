"""Everything that is known of the quality of one model's variants, in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from serving.config import ModelConfig, QualityConfig
from serving.monitor.judge import Judge, Probed
from serving.quality.samples import Samples
from serving.quality.verdict import judge, thresholds
from serving.seams import (
    Comparison,
    EvaluationProgress,
    Input,
    LabelReport,
    ModelQuality,
    Origin,
    Task,
    VariantQuality,
)

SAMPLED: tuple[Origin, ...] = ("probes", "live")
PROBE_PERCENTILE = 95


@dataclass(slots=True)
class _Known:
    """What is known of one variant since it was deployed."""

    windows: dict[Origin, Samples]
    deployed_at: float | None = None
    is_outdated: bool = False
    labels: LabelReport | None = None
    probe_p95_s: float | None = None


class Assessment:
    """Collects comparisons and labels of one model's variants, and concludes.

    Args:
        config: Of the model.
        task: Its entry in the table.
        judge: Gets and compares answers.
        probes: What the judge asks, in the same order.
        on_comparison: Told of each variant, origin and comparison.
    """

    def __init__(
        self,
        config: ModelConfig,
        task: Task,
        judge: Judge,
        probes: Sequence[Input],
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
        self._config = config.quality
        self._probes = probes
        self._on_comparison = on_comparison
        self._variants = tuple(variant.name for variant in config.variants)
        self._floor, self._tolerance = thresholds(task, config.quality)
        self._known = {variant: self._nothing() for variant in self._variants}
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
        """When the deployment began that answered the probes; None if there is none, or a newer."""
        known = self._known[variant]
        return None if known.is_outdated else known.deployed_at

    def knows(self, variant: str) -> bool:
        """Whether the model has such a variant."""
        return variant in self._known

    def outdate(self, variant: str) -> None:
        """Take in no more comparisons of a variant until its new deployment has been probed.

        What is concluded of the last one stands until then. Without a reference there is nothing
        to compare with, so a new one outdates all.
        """
        for name in self._depending(variant):
            self._known[name].is_outdated = True

    def set_probed(self, variant: str, deployed_at: float, probed: Probed) -> None:
        """Take what a deployment did with the probes, and forget what there was before.

        After the reference all other variants have to be probed again.
        """
        for name in self._depending(variant):
            if name != variant:
                self.judge.forget(name)
            self._known[name] = self._nothing()
        known = self._known[variant]
        known.deployed_at = deployed_at
        if probed.seconds:
            known.probe_p95_s = float(np.percentile(probed.seconds, PROBE_PERCENTILE))
        for probe, comparison in zip(self._probes, probed.comparisons, strict=False):
            self.record(variant, "probes", comparison, probe)

    def set_failed(self, variant: str, deployed_at: float) -> None:
        """Take it that a deployment could answer no probe: it agrees in nothing."""
        comparisons = (Comparison(agreement=0.0),) * len(self._probes)
        self.set_probed(variant, deployed_at, Probed(comparisons, ()))

    def record(self, variant: str, origin: Origin, comparison: Comparison, given: Input) -> None:
        """Take one comparison; its input is kept only if the configuration asks for it."""
        self._known[variant].windows[origin].add(comparison, given)
        if origin == "live":
            self._live_inputs.append(given)
        self._on_comparison(variant, origin, comparison)

    @property
    def live_inputs(self) -> tuple[Input, ...]:
        """The latest ones that were compared, of any variant, the oldest first."""
        return tuple(self._live_inputs)

    def set_labels(self, variant: str, labels: LabelReport) -> None:
        """Take the result of an evaluation."""
        self._known[variant].labels = labels

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
        )

    def _depending(self, variant: str) -> tuple[str, ...]:
        """What is known only as long as a deployment of ``variant`` stands."""
        return self._variants if variant == self.reference else (variant,)

    def _nothing(self) -> _Known:
        return _Known({origin: Samples(origin, self._config.keep_samples) for origin in SAMPLED})

    def _report(self, variant: str) -> VariantQuality:
        known = self._known[variant]
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
                probe_p95_s=known.probe_p95_s,
            )
        reports = (window.report() for window in known.windows.values())
        origins = tuple(report for report in reports if report is not None)
        judgement = judge(origins, known.labels, self._floor, self._tolerance)
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
            probe_p95_s=known.probe_p95_s,
        )
