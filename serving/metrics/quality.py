"""What is known of the variants' quality."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from prometheus_client import CollectorRegistry

from serving.metrics import series
from serving.metrics.registered import counter, gauge, histogram
from serving.seams import Comparison, ModelQuality, Origin, VariantQuality, Verdict


class QualityMetrics:
    """Exports comparisons as they come, and conclusions as they stand."""

    def __init__(self, replica: str) -> None:
        self.registry = CollectorRegistry()
        self._replica = replica
        self._samples = counter(series.QUALITY_SAMPLES, self.registry)
        self._histograms = {
            "cosine": histogram(series.QUALITY_SIMILARITY, self.registry),
            "divergence": histogram(series.QUALITY_DIVERGENCE, self.registry),
        }
        self._agreement = gauge(series.QUALITY_AGREEMENT, self.registry)
        self._agreement_low = gauge(series.QUALITY_AGREEMENT_LOW, self.registry)
        self._accuracy = gauge(series.QUALITY_ACCURACY, self.registry)
        self._perplexity = gauge(series.QUALITY_PERPLEXITY, self.registry)
        self._verdict = gauge(series.QUALITY_VERDICT, self.registry)
        self._in_auto = gauge(series.QUALITY_IN_AUTO, self.registry)
        self._evidence_kept = gauge(series.EVIDENCE_KEPT, self.registry)

    def observe(self, model: str, variant: str, origin: Origin, comparison: Comparison) -> None:
        """Record one comparison.

        The histograms are of live requests alone: the probes are asked once.
        """
        self._samples.labels(model, variant, origin, self._replica).inc()
        if origin != "live":
            return
        for name, family in self._histograms.items():
            if name in comparison.measures:
                value = comparison.measures[name]
                family.labels(model, variant, self._replica).observe(value)

    def set_evidence_kept(self, is_kept: bool) -> None:
        """Record whether what is learned now outlives the process."""
        self._evidence_kept.labels(self._replica).set(is_kept)

    def set_report(self, report: Iterable[ModelQuality]) -> None:
        """Publish what is concluded now; what is no longer known disappears."""
        for family in (self._agreement, self._agreement_low, self._accuracy, self._perplexity):
            family.clear()
        for model in report:
            for variant in model.variants:
                self._set_variant(model.model, variant)

    def _set_variant(self, model: str, quality: VariantQuality) -> None:
        name = (model, quality.variant)
        for report in quality.origins:
            agreement = report.measures["agreement"]
            values = (*name, report.origin, self._replica)
            self._agreement.labels(*values).set(agreement.value)
            self._agreement_low.labels(*values).set(agreement.low)
        if quality.labels is not None:
            dataset = quality.labels.dataset
            if quality.labels.accuracy is not None:
                self._accuracy.labels(*name, dataset, self._replica).set(
                    quality.labels.accuracy.value
                )
            if quality.labels.perplexity is not None:
                self._perplexity.labels(*name, dataset, self._replica).set(
                    quality.labels.perplexity.value
                )
        for verdict in get_args(Verdict) if not quality.is_reference else ():
            self._verdict.labels(*name, verdict, self._replica).set(verdict == quality.verdict)
        self._in_auto.labels(*name, self._replica).set(quality.in_auto)
        if not quality.is_reference:
            # There before the first sample, at 0, for ``rate``.
            self._samples.labels(*name, "live", self._replica)
