"""What is exported of the variants' quality."""

from serving.metrics import QualityMetrics, exposition
from serving.seams import ModelQuality, VariantQuality
from tests.unit.metrics.pages import samples


def test_live_samples_are_counted_from_0_so_that_their_absence_is_a_rate() -> None:
    metrics = QualityMetrics("r1")
    variants = tuple(
        VariantQuality(name, name == "fp32", "not enough samples", "", True, 0, (), None, (), None)
        for name in ("fp32", "int4")
    )
    metrics.set_report([ModelQuality("minilm", "embeddings", "fp32", 0.7, 0.05, None, variants)])
    name = "quantserve_quality_samples_total"
    live = (("model", "minilm"), ("replica", "r1"), ("source", "shadow"), ("variant", "int4"))
    counts = [one for one in samples(exposition([metrics.registry])) if one[0] == name]
    assert counts == [(name, live, 0)]

    metrics.observe("minilm", "int4", "shadow", 0.9, None)
    metrics.set_report([ModelQuality("minilm", "embeddings", "fp32", 0.7, 0.05, None, variants)])
    assert (name, live, 1) in samples(exposition([metrics.registry]))
