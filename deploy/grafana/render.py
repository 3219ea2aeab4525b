"""Renders the dashboards: ``python -m deploy.grafana.render [--check]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana import compare_variants, service_health

FOLDER = Path(__file__).parent / "dashboards"
DASHBOARDS = {
    "compare-variants.json": compare_variants.build,
    "service-health.json": service_health.build,
}


def render(name: str) -> str:
    """The file ``name`` as it should be."""
    dashboard = DASHBOARDS[name]().build()
    return JSONEncoder(sort_keys=True, indent=2).encode(dashboard) + "\n"


def stale() -> list[str]:
    """Files that are not what their Python source says."""
    return [
        name
        for name in DASHBOARDS
        if not (FOLDER / name).is_file() or (FOLDER / name).read_text() != render(name)
    ]


def main() -> int:
    """Write the files, or say which are stale."""
    parser = argparse.ArgumentParser(prog="python -m deploy.grafana.render", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if stale")
    if not parser.parse_args().check:
        FOLDER.mkdir(exist_ok=True)
        for name in DASHBOARDS:
            (FOLDER / name).write_text(render(name))
        return 0
    for name in stale():
        sys.stderr.write(f"{name} is stale: run python -m deploy.grafana.render\n")
    return 1 if stale() else 0


if __name__ == "__main__":
    sys.exit(main())
