"""Writes what follows from code and configuration: ``python -m deploy.render [--check]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import yaml

from deploy.grafana.boards import DASHBOARDS, to_json
from deploy.kuberay.manifest import PROMETHEUS, pod_monitors, ray_service
from deploy.serve_config import read_config, serve_config, to_yaml
from serving.app.ray_environment import CLUSTER_SETTINGS
from serving.demo import DEMO_CONFIG

FOLDER = Path(__file__).parent
HEADER = "# Rendered by `python -m deploy.render`; a test says when it has to be run again.\n"


def _serve_config() -> str:
    return to_yaml(serve_config(read_config(DEMO_CONFIG)))


def _ray_service() -> str:
    return to_yaml(ray_service(read_config(DEMO_CONFIG)))


def _pod_monitors() -> str:
    return "---\n".join(map(to_yaml, pod_monitors(read_config(DEMO_CONFIG))))


def _ray_environment() -> str:
    return "".join(f"{name}={value}\n" for name, value in CLUSTER_SETTINGS.items())


def _compose_prometheus() -> str:
    """Prometheus's configuration, with the service under its name in ``compose.yaml``."""
    document = yaml.safe_load(PROMETHEUS.read_text(encoding="utf-8"))
    return to_yaml(document).replace("127.0.0.1:", "quantserve:")


FILES: dict[str, Callable[[], str]] = {
    "serve.yaml": _serve_config,
    "ray.env": _ray_environment,
    "compose.prometheus.yml": _compose_prometheus,
    "kuberay/rayservice.yaml": _ray_service,
    "kuberay/podmonitors.yaml": _pod_monitors,
    **{f"grafana/dashboards/{name}": partial(to_json, name) for name in DASHBOARDS},
}


def render(name: str) -> str:
    """The file ``name`` as it should be."""
    header = "" if name.endswith(".json") else HEADER  # JSON has no comments
    return header + FILES[name]()


def stale() -> list[str]:
    """Files that are not what code and configuration say."""
    return [
        name
        for name in FILES
        if not (FOLDER / name).is_file() or (FOLDER / name).read_text("utf-8") != render(name)
    ]


def main() -> int:
    """Write the files, or say which are stale."""
    parser = argparse.ArgumentParser(prog="python -m deploy.render", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if stale")
    if not parser.parse_args().check:
        for name in FILES:
            (FOLDER / name).write_text(render(name), encoding="utf-8")
        return 0
    found = stale()
    for name in found:
        sys.stderr.write(f"{name} is stale: run python -m deploy.render\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
