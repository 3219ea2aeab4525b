"""What is exported of the variants' quality."""

from serving.metrics import QualityMetrics, exposition
from serving.seams import Comparison, ModelQuality, VariantQuality
from tests.unit.metrics.pages import samples


def test_live_samples_are_counted_from_0_so_that_their_absence_is_a_rate() -> None:
    metrics = QualityMetrics("r1")
    variants = tuple(
        VariantQuality(name, name == "fp32", "not enough samples", "", True, 0, (), None, (), None)
        for name in ("fp32", "int4")
    )
    metrics.set_report([ModelQuality("minilm", "embeddings", "fp32", 0.7, 0.05, None, variants)])
    name = "quantserve_quality_samples_total"
    live = (("model", "minilm"), ("origin", "live"), ("replica", "r1"), ("variant", "int4"))
    counts = [one for one in samples(exposition([metrics.registry])) if one[0] == name]
    assert counts == [(name, live, 0)]

    metrics.observe("minilm", "int4", "live", Comparison(1.0, {"cosine": 0.9}))
    metrics.set_report([ModelQuality("minilm", "embeddings", "fp32", 0.7, 0.05, None, variants)])
    assert (name, live, 1) in samples(exposition([metrics.registry]))


def test_histograms_are_of_the_live_measures_that_a_task_has() -> None:
    metrics = QualityMetrics("r1")
    metrics.observe("minilm", "int4", "probes", Comparison(1.0, {"cosine": 0.9}))
    metrics.observe("minilm", "int4", "live", Comparison(1.0, {"cosine": 0.9, "surprise": 3.0}))
    metrics.observe("sentiment", "int4", "live", Comparison(1.0, {"divergence": 0.5}))
    metrics.observe("pairs", "int4", "live", Comparison(1.0))
    counts = {
        (name, dict(labels)["model"]): value
        for name, labels, value in samples(exposition([metrics.registry]))
        if name.endswith("_count")
    }
    assert counts == {
        ("quantserve_quality_similarity_count", "minilm"): 1,
        ("quantserve_quality_divergence_count", "sentiment"): 1,
    }


def test_whether_evidence_is_kept_is_what_was_said_last() -> None:
    metrics = QualityMetrics("r1")
    for is_kept in (True, False):
        metrics.set_evidence_kept(is_kept)
        series = "quantserve_evidence_kept"
        assert metrics.registry.get_sample_value(series, {"replica": "r1"}) == is_kept
