"""Starts and stops the real Prometheus on the shipped configuration, with other targets."""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.integration.running_service import RunningService, free_port

SHIPPED = Path(__file__).parents[2] / "deploy" / "prometheus"
START_S = 30
STOP_S = 30
POLL_S = 0.2


class RunningPrometheus:
    """A server that answers queries.

    Attributes:
        at: Unix time for which ``values`` asks; None asks for now.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.at: float | None = None

    def get(self, route: str, **parameters: str) -> Any:
        """The data of an answer of the HTTP API, which must be a success."""
        answer = httpx.get(f"{self.url}/api/v1/{route}", params=parameters, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def values(self, expression: str) -> dict[tuple[str, ...], float]:
        """Values that are numbers, by the values of their labels but the name, sorted."""
        when = {} if self.at is None else {"time": str(self.at)}
        found = {
            tuple(value for name, value in sorted(one["metric"].items()) if name != "__name__"): (
                float(one["value"][1])
            )
            for one in self.get("query", query=expression, **when)["result"]
        }
        return {labels: value for labels, value in found.items() if math.isfinite(value)}


@contextlib.contextmanager
def running_prometheus(targets: Mapping[str, str], folder: Path) -> Iterator[RunningPrometheus]:
    """Start Prometheus and stop it in the end.

    Args:
        targets: By job, ``host:port``; every job of the configuration must be there.
        folder: Where the configuration and the data go.
    """
    binary = shutil.which("prometheus")
    if binary is None:
        message = "prometheus is missing: apt-get install prometheus"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    config = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
    config["rule_files"] = [str(SHIPPED / file) for file in config["rule_files"]]
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    file, log = folder / "prometheus.yml", folder / "prometheus.log"
    file.write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    command = [
        binary,
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        _wait_until_ready(process, f"http://{address}", log)
        yield RunningPrometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait(STOP_S)


def exporter_port(service: RunningService) -> int:
    """Where HAProxy's own exporter listens: another port than usual if that was taken."""
    for process in service.descendants():
        try:
            command = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        if "haproxy" in " ".join(command[:1]) and "-f" in command:
            config = Path(command[command.index("-f") + 1]).read_text()
            found = re.search(r"frontend prometheus\n\s+bind \S*:(\d+)", config)
            assert found is not None, config
            return int(found[1])
    raise AssertionError("the service has no HAProxy")


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"prometheus ended: {log.read_text()}"
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/-/ready", timeout=5).status_code == 200:
                return
        time.sleep(POLL_S)
    raise AssertionError(f"prometheus is not ready within {START_S} s: {log.read_text()}")
