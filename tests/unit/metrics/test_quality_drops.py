"""Dropped samples, by reason."""

from __future__ import annotations

from serving.metrics import QualityDrops, exposition
from serving.seams import DropReason
from tests.unit.metrics.pages import samples

NAMES = [("minilm", "int4"), ("minilm", "bf16")]
REASONS: tuple[DropReason, ...] = ("over_limit", "queue_full")


def counts(drops: QualityDrops) -> dict[tuple[str, str, str], float]:
    """By variant, reason and replica."""
    found = {}
    for name, labels, value in samples(exposition([drops.registry])):
        named = dict(labels)
        assert (name, named["model"]) == ("quantserve_quality_dropped_total", "minilm")
        found[named["variant"], named["reason"], named["replica"]] = value
    return found


def test_every_reason_is_there_from_the_start() -> None:
    assert counts(QualityDrops(NAMES, "r1", REASONS)) == {
        (variant, reason, "r1"): 0 for _, variant in NAMES for reason in REASONS
    }


def test_a_drop_is_counted_where_it_happened() -> None:
    drops = QualityDrops(NAMES, "r1", REASONS)
    drops.count("minilm", "bf16", "queue_full")
    drops.count("minilm", "bf16", "queue_full")
    assert {name: n for name, n in counts(drops).items() if n} == {("bf16", "queue_full", "r1"): 2}
