"""Everything that is known of the quality of one model's variants, in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from serving.config import ModelConfig, QualityConfig
from serving.monitor.judge import Judge, Probed
from serving.quality.agreement import Comparison
from serving.quality.samples import Samples
from serving.quality.verdict import judge, thresholds
from serving.seams import (
    EvaluationProgress,
    LabelReport,
    ModelQuality,
    Source,
    VariantQuality,
)

SAMPLED: tuple[Source, ...] = ("probes", "shadow")
PROBE_PERCENTILE = 95


@dataclass(slots=True)
class _Known:
    """What is known of one variant since it was deployed."""

    windows: dict[Source, Samples]
    deployed_at: float | None = None
    labels: LabelReport | None = None
    probe_p95_s: float | None = None


class Assessment:
    """Collects comparisons and labels of one model's variants, and concludes.

    Args:
        config: Of the model.
        judge: Gets and compares answers.
        probes: What the judge asks, in the same order.
        on_comparison: Told of each variant, source and comparison.
    """

    def __init__(
        self,
        config: ModelConfig,
        judge: Judge,
        probes: Sequence[str],
        on_comparison: Callable[[str, Source, Comparison], None],
    ) -> None:
        self.model = config.name
        self.reference = config.reference
        self.judge = judge
        self.evaluation: EvaluationProgress | None = None
        self._task = config.task
        self._config = config.quality
        self._probes = probes
        self._on_comparison = on_comparison
        self._variants = tuple(variant.name for variant in config.variants)
        self._floor, self._tolerance = thresholds(config.task, config.quality)
        self._known = {variant: self._nothing() for variant in self._variants}

    @property
    def config(self) -> QualityConfig:
        """How the model is judged."""
        return self._config

    @property
    def reference_first(self) -> list[str]:
        """Every variant, the reference before the others."""
        return sorted(self._variants, key=lambda variant: variant != self.reference)

    def deployed_at(self, variant: str) -> float | None:
        """When the deployment whose probes are answered began; None before they are."""
        return self._known[variant].deployed_at

    def reset(self, variant: str) -> None:
        """Forget a variant that was deployed again; of the reference, everything."""
        forgotten = self._variants if variant == self.reference else (variant,)
        for name in forgotten:
            self._known[name] = self._nothing()

    def set_probed(self, variant: str, deployed_at: float, probed: Probed) -> None:
        """Take what a deployment did with the probes."""
        known = self._known[variant]
        known.deployed_at = deployed_at
        known.probe_p95_s = float(np.percentile(probed.seconds, PROBE_PERCENTILE))
        for text, comparison in zip(self._probes, probed.comparisons, strict=False):
            self.record(variant, "probes", comparison, text)

    def record(self, variant: str, source: Source, comparison: Comparison, text: str) -> None:
        """Take one comparison; the text is kept only if the configuration asks for it."""
        self._known[variant].windows[source].add(comparison, text)
        self._on_comparison(variant, source, comparison)

    def set_labels(self, variant: str, labels: LabelReport) -> None:
        """Take the result of an evaluation."""
        self._known[variant].labels = labels

    def report(self) -> ModelQuality:
        """Conclude."""
        return ModelQuality(
            model=self.model,
            task=self._task,
            reference=self.reference,
            floor=self._floor,
            tolerance=self._tolerance,
            evaluation=self.evaluation,
            variants=tuple(self._report(variant) for variant in self._variants),
        )

    def _nothing(self) -> _Known:
        return _Known({source: Samples(source, self._config.keep_samples) for source in SAMPLED})

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
                sources=(),
                labels=known.labels,
                worst=(),
                probe_p95_s=known.probe_p95_s,
            )
        reports = (window.report() for window in known.windows.values())
        sources = tuple(report for report in reports if report is not None)
        judgement = judge(sources, known.labels, self._floor, self._tolerance)
        kept = [sample for window in known.windows.values() for sample in window.worst]
        kept.sort(key=lambda sample: sample.agreement)
        return VariantQuality(
            variant=variant,
            is_reference=False,
            verdict=judgement.verdict,
            reason=judgement.reason,
            in_auto=judgement.in_auto,
            quality_low=judgement.quality_low,
            sources=sources,
            labels=known.labels,
            worst=tuple(kept[: self._config.keep_samples]),
            probe_p95_s=known.probe_p95_s,
        )
