"""Whose probes are asked first."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from serving.gateway.cluster import Cluster
from serving.monitor.deployment import _in_order
from tests.unit.monitor.fakes import Assessed


def test_models_that_generate_come_after_all_others() -> None:
    assessments: list[Any] = [Assessed().assessment for _ in range(3)]
    writer, *encoders = assessments
    writer.task = SimpleNamespace(kind="generator")
    probings = _in_order(cast(Cluster, SimpleNamespace()), assessments)
    assert [probing._assessment for probing in probings] == [*encoders, writer]
    assert [list(probing._earlier) for probing in probings] == [[], [], probings[:2]]
