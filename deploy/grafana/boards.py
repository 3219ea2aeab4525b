"""Every dashboard, by the name of its file."""

from __future__ import annotations

from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana import compare_variants, service_health

FOLDER = Path(__file__).parent / "dashboards"
DASHBOARDS = {
    "compare-variants.json": compare_variants.build,
    "service-health.json": service_health.build,
}


def to_json(name: str) -> str:
    """The dashboard of the file ``name``, as Grafana reads it."""
    return JSONEncoder(sort_keys=True, indent=2).encode(DASHBOARDS[name]().build()) + "\n"
