"""Starts and stops the real service as an operator would: ``quantserve serve CONFIG``."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import psutil

START_S = 900
"""The first start prepares every artifact."""

PROBED_S = 600
STOP_S = 60
POLL_S = 0.3

PORTS = range(20_000, 30_000)
"""Below those that the kernel gives to whoever asks for any one, and that Ray gives to replicas."""


SOURCES = Path(__file__).parents[2] / "serving"
WARNING = re.compile(rf"{SOURCES}/\S+\.py:\d+: \w*Warning: .*")
RAY_LOGS = re.compile(r"^logs: (/.+)/serve$", re.MULTILINE)


class RayDidNotStart(AssertionError):
    """The service ended because Ray did not come up."""


class RunningService:
    """A service in a process of its own.

    Args:
        config: YAML file.
        log: Where its output goes; its evidence goes beside it.
        port: Port to bind; a free one if None.
        environment: Variables beside those of this process.
    """

    def __init__(
        self,
        config: Path,
        log: Path,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self.counts: list[dict[str, int]] = []
        """What each look at a service that was not ready yet counted, by state."""
        command = [sys.executable, "-m", "serving", "serve", str(config), "--port", str(self.port)]
        with log.open("wb") as out:
            # A process group of its own, so that Ctrl-C can reach all of it, as in a terminal.
            self.process = subprocess.Popen(
                command,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={
                    **os.environ,
                    "QUANTSERVE_EVIDENCE__FOLDER": str(log.parent / "evidence"),
                    **(environment or {}),
                },
            )

    def wait_until_settled(self) -> list[dict[str, object]]:
        """Wait until every variant is ready or has failed; return those that failed."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            self._require_running()
            missing = self.not_ready()
            if missing is not None and all(entry["failed"] for entry in missing):
                return missing
            time.sleep(POLL_S)
        raise AssertionError(f"not ready within {START_S} s: {self.log.read_text()}")

    def _require_running(self) -> None:
        if self.process.poll() is None:
            return
        said = f"the service ended: {self.log.read_text()}"
        raise RayDidNotStart(said) if "error: Ray did not start" in said else AssertionError(said)

    def wait_until_probed(self) -> None:
        """Wait until every variant has answered its probes: the background is quiet then."""
        deadline = time.monotonic() + PROBED_S
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError, KeyError):
                models = httpx.get(f"{self.url}/v1/quality", timeout=5).json()["data"]
                if all(v["probes"]["state"] == "done" for m in models for v in m["variants"]):
                    return
            time.sleep(POLL_S)
        raise AssertionError(f"not probed within {PROBED_S} s: {self.log.read_text()}")

    def not_ready(self) -> list[dict[str, object]] | None:
        """What the service says is not ready; None while it does not answer."""
        try:
            answer = httpx.get(f"{self.url}/v2/health/ready", timeout=5)
            if "ready" not in answer.json():
                return None
            assert answer.status_code == (200 if answer.json()["ready"] else 503)
            if not answer.json()["ready"]:
                self.counts.append(answer.json()["states"])
            return list(answer.json().get("not_ready", []))
        except (httpx.HTTPError, ValueError):
            return None

    def descendants(self) -> list[psutil.Process]:
        """Every process that the service has started and that lives."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def replica_processes(self, model: str, variant: str) -> list[psutil.Process]:
        """The processes of one variant's replicas."""
        title = f"ServeReplica:{model}--{variant}:"
        found = []
        for process in self.descendants():
            with contextlib.suppress(psutil.NoSuchProcess):
                if title in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def warnings_of_ours(self) -> list[str]:
        """What Python has warned of in our modules, in any of its processes."""
        said = self.log.read_text(errors="replace")
        folders = [Path(folder) for folder in RAY_LOGS.findall(said)]
        errors = [file for folder in folders for file in folder.glob("*.err")]
        texts = [said, *(file.read_text(errors="replace") for file in errors)]
        return [warning for text in texts for warning in WARNING.findall(text)]

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Ask the service to stop, by SIGINT as Ctrl-C would, and wait; returns its exit status."""
        if signum == signal.SIGINT:
            os.killpg(self.process.pid, signum)
        else:
            self.process.send_signal(signum)
        return self.process.wait(STOP_S)


def wait_until_in_flight(service: RunningService, model: str, variant: str) -> None:
    """Wait until a replica of the variant works on a request."""
    with httpx.Client(base_url=service.url, timeout=10) as http:
        for _ in range(300):
            for line in http.get("/metrics").text.splitlines():
                if (
                    "in_flight_requests{" in line
                    and f'model="{model}"' in line
                    and f'variant="{variant}"' in line
                    and not line.endswith(" 0.0")
                ):
                    return
    raise AssertionError("the request did not arrive")


def free_port() -> int:
    """A port that nothing listens on.

    Seconds pass before it is bound, in which Ray's processes take hundreds that nobody chose.
    """
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", random.choice(PORTS)))
            return int(probe.getsockname()[1])


@contextlib.contextmanager
def running_service(
    config: Path, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[RunningService]:
    """Start a service, wait for it, and stop it in the end.

    Ray gives up if a process of its own needs more than fifteen seconds to start, which happens on
    a machine with much else to do. The service says so and ends; it is started once more.
    """
    try:
        service = _start(config, log, environment)
    except RayDidNotStart as error:
        warnings.warn(f"Ray did not come up and is started again: {error}", stacklevel=2)
        service = _start(config, log, environment)
    try:
        yield service
    finally:
        _end(service)
    assert service.warnings_of_ours() == []


def _start(config: Path, log: Path, environment: Mapping[str, str] | None) -> RunningService:
    service = RunningService(config, log, environment=environment)
    try:
        service.wait_until_settled()
    except BaseException:
        _end(service)
        raise
    return service


def _end(service: RunningService) -> None:
    if service.process.poll() is None:
        service.stop()
