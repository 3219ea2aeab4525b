"""Names of series in PromQL, and those that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from serving.metrics import series
from serving.metrics.series import PREFIX, Series

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULE_FILES = ("recording.yml", "alerts.yml")

_NAME = re.compile(r"\bquantserve[_:][a-zA-Z0-9_:]+")
_BOUND = re.compile(r'quantserve_(\w+)_bucket\{le="([^"]+)"')


def exported() -> dict[str, Series]:
    """Every name that the service can export, as Prometheus stores it."""
    found = {}
    for one in vars(series).values():
        if isinstance(one, Series):
            endings = ("_bucket", "_sum", "_count") if one.buckets else ("", "_total")
            found.update({f"{PREFIX}{one.name}{ending}": one for ending in endings})
    return found


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
