"""Dropped samples, by reason."""

from __future__ import annotations

from serving.metrics import QualityDrops, exposition
from serving.seams import DropReason
from tests.unit.metrics.pages import samples

NAMES = ["minilm", "sentiment"]
REASONS: tuple[DropReason, ...] = ("over_limit", "queue_full")


def counts(drops: QualityDrops) -> dict[tuple[str, str, str], float]:
    """By model, reason and replica."""
    found = {}
    for name, labels, value in samples(exposition([drops.registry])):
        named = dict(labels)
        assert name == "quantserve_quality_dropped_total"
        found[named["model"], named["reason"], named["replica"]] = value
    return found


def test_every_reason_is_there_from_the_start() -> None:
    assert counts(QualityDrops(NAMES, "r1", REASONS)) == {
        (model, reason, "r1"): 0 for model in NAMES for reason in REASONS
    }


def test_a_drop_is_counted_where_it_happened() -> None:
    drops = QualityDrops(NAMES, "r1", REASONS)
    drops.count("sentiment", "queue_full")
    drops.count("sentiment", "queue_full")
    assert {name: n for name, n in counts(drops).items() if n} == {
        ("sentiment", "queue_full", "r1"): 2
    }
