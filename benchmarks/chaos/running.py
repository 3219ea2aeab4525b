"""The service that faults are done to, with a small disk of its own where one can be mounted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from benchmarks.chaos.answers import Known, ask_known, questions
from benchmarks.chaos.faults import Victim
from tests.integration.running_prometheus import exporter_port
from tests.integration.running_service import RunningService, running_service

CONFIG = Path(__file__).with_name("chaos.yaml")
SITE = Path(__file__).with_name("site")
DISK = "600m"
"""Enough for the artifacts of ``chaos.yaml``, and filled in no time."""


@dataclass(frozen=True, slots=True)
class Prey:
    """A service that is well.

    Attributes:
        service: Runs.
        victim: The same, as faults see it.
        known: What it answers while nothing is wrong.
    """

    service: RunningService
    victim: Victim
    known: Known

    @property
    def targets(self) -> dict[str, str]:
        """Where Prometheus asks, by job."""
        return {
            "quantserve": f"127.0.0.1:{self.service.port}",
            "haproxy": f"127.0.0.1:{exporter_port(self.service)}",
        }


@contextmanager
def running_prey(folder: Path, *, with_disk: bool) -> Iterator[Prey]:
    """Start ``chaos.yaml``, ask what is right, and stop it in the end.

    Args:
        folder: Where its log, its evidence and its disk go.
        with_disk: Whether artifacts and evidence lie on a disk that can be filled.
    """
    conduct = folder / "conduct"
    conduct.write_text("")
    path = os.pathsep.join(filter(None, [str(SITE), os.environ.get("PYTHONPATH")]))
    environment = {"CHAOS_CONDUCT": str(conduct), "PYTHONPATH": path}
    with _small_disk(folder / "disk", wanted=with_disk) as disk:
        if disk is not None:
            environment["QUANTSERVE_ARTIFACTS__FOLDER"] = str(disk / "artifacts")
            environment["QUANTSERVE_EVIDENCE__FOLDER"] = str(disk / "evidence")
        with running_service(CONFIG, folder / "service.log", environment) as service:
            assert service.not_ready() == []
            known = ask_known(service.url, questions(_tasks()))
            victim = Victim(psutil.Process(service.process.pid), conduct, disk)
            yield Prey(service, victim, known)


def _tasks() -> dict[tuple[str, str], str]:
    """By model and variant."""
    return {
        (model["name"], variant["name"]): model["task"]
        for model in yaml.safe_load(CONFIG.read_text())["models"]
        for variant in model["variants"]
    }


@contextmanager
def _small_disk(folder: Path, *, wanted: bool) -> Iterator[Path | None]:
    """Mount a disk in memory, which only root may."""
    if not wanted:
        yield None
        return
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={DISK}", "chaos", str(folder)]
    subprocess.run(["mount", *options], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
