"""Names of series in PromQL, and those that exist."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

from serving.metrics import (
    DraftMetrics,
    EdgeMetrics,
    GatewayMetrics,
    QualityDrops,
    QualityMetrics,
    ScrapeMetrics,
    series,
)
from serving.metrics.series import PREFIX, Series
from tests.unit.metrics.pages import encoder, generator

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULE_FILES = ("recording.yml", "alerts.yml")

ENDINGS = {"gauge": ("",), "counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
"""What Prometheus has at the end of the names of each kind."""

_NAME = re.compile(r"\bquantserve[_:][a-zA-Z0-9_:]+")
_BOUND = re.compile(r'quantserve_(\w+)_bucket\{le="([^"]+)"')


@cache
def exported() -> dict[str, Series]:
    """Every name that the service can export, as Prometheus stores it."""
    by_name = {PREFIX + one.name: one for one in vars(series).values() if isinstance(one, Series)}
    registered = {
        family.name: family.type for registry in _registries() for family in registry.collect()
    }
    assert registered.keys() == by_name.keys(), "a series that no process exports"
    return {
        name + ending: one for name, one in by_name.items() for ending in ENDINGS[registered[name]]
    }


def _registries() -> list[CollectorRegistry]:
    """Of every process of the service."""
    drafting = generator()[0]
    DraftMetrics(drafting)
    return [
        EdgeMetrics("r").registry,
        GatewayMetrics("r", 1).registry,
        ScrapeMetrics("r").registry,
        QualityMetrics("r").registry,
        QualityDrops([], "r", []).registry,
        encoder()[0].registry,
        drafting.registry,
    ]


def rules() -> list[dict[str, Any]]:
    """Every rule, records and alerts."""
    return [
        rule
        for file in RULE_FILES
        for group in yaml.safe_load((PROMETHEUS / file).read_text())["groups"]
        for rule in group["rules"]
    ]


def records() -> set[str]:
    """Names of the recorded series."""
    return {rule["record"] for rule in rules() if "record" in rule}


def names_in(expression: str) -> set[str]:
    """quantserve's series that an expression asks for, recorded ones included."""
    return set(_NAME.findall(expression))


def bounds_in(expression: str) -> list[tuple[str, str]]:
    """Histogram, without prefix, and bucket of every bucket that is asked for by name."""
    return _BOUND.findall(expression)
