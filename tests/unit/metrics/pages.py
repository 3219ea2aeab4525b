"""What real metrics export, read back."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families

from serving.config import VariantConfig
from serving.metrics import EncoderMetrics, GeneratorMetrics, Labels, ReplicaMetrics
from serving.seams import GeneratorLoad
from tests.unit.fakes.backends import describe, describe_generator
from tests.unit.fakes.encoder import FakeTask

EMBEDDINGS = Labels("minilm", "int4", "embeddings")
GENERATION = Labels("smollm2", "int4", "generation")
LOAD = GeneratorLoad(running=2, waiting=3, background=0, kv_cache_bytes=4_000, kv_cache_used=0.25)


def encoder(labels: Labels = EMBEDDINGS, name: str = "r1") -> tuple[ReplicaMetrics, EncoderMetrics]:
    """Metrics of a replica that is loaded."""
    replica = ReplicaMetrics(labels, name)
    variant = VariantConfig(name=labels.variant, recipe='a "quoted"\nline \\')
    replica.set_info(variant, describe(FakeTask()), is_reference=False)
    replica.set_queue_limit(5)
    replica.set_description(describe(FakeTask()))
    return replica, EncoderMetrics(replica)


def generator(
    labels: Labels = GENERATION, name: str = "r1"
) -> tuple[ReplicaMetrics, GeneratorMetrics]:
    """Likewise, of a generator."""
    replica = ReplicaMetrics(labels, name)
    replica.set_info(VariantConfig(name=labels.variant), describe_generator(), is_reference=True)
    replica.set_queue_limit(6)
    replica.set_description(describe_generator())
    return replica, GeneratorMetrics(replica, lambda: LOAD)


def value(registry: CollectorRegistry, name: str, labels: Labels, **more: str) -> float | None:
    """One sample of the replica ``r1``."""
    names = {"model": labels.model, "variant": labels.variant, "replica": "r1", **more}
    return registry.get_sample_value(f"quantserve_{name}", names)


def families(page: str) -> dict[str, Metric]:
    """The page's families by name; none may stand twice."""
    found = list(text_string_to_metric_families(page))
    assert len({family.name for family in found}) == len(found), "a family stands twice"
    return {family.name: family for family in found}


def samples(page: str) -> list[tuple[str, tuple[tuple[str, str], ...], float]]:
    """Every sample, sorted."""
    return sorted(
        (sample.name, tuple(sorted(sample.labels.items())), sample.value)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    )
