"""A service on three Ray nodes of which one dies under load.

Run as root: ``python -m benchmarks.several_nodes`` or ``make nodes``. The nodes are on this
machine, each with a network, processes and temporary files of its own (``ray_nodes.py``).
``quantserve serve --address`` joins them; half of an open loop of requests takes each path, through
the head's HAProxy. Then a node that is not the head and has a replica is killed, or its network is
cut. Each answer is compared with the known one; see ``benchmarks/chaos``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as Folder
from typing import Any

import httpx
import psutil

from benchmarks.chaos.answers import Known, ask_known, questions
from benchmarks.chaos.checker import FaultRow, path_row, table, touched
from benchmarks.chaos.experiment import LONGEST_S, POLL_S, is_well_again
from benchmarks.chaos.log import Path
from benchmarks.chaos.plan import GATEWAY, QUALITY
from benchmarks.chaos.workload import Workload, clock
from benchmarks.conditions import conditions
from tests.integration.ray_nodes import GCS_PORT, RayNode, ray_nodes

CONFIG = Folder(__file__).with_suffix(".yaml")
PORT = 8000
VARIANTS = ("fp32", "int8-ort")
REPLICAS, GATEWAYS = 2, 2
RATES = {f"minilm:{variant}": 8.0 for variant in VARIANTS}
"""Requests a second, half of them on each path."""

NODES = 3
ROLES = (GATEWAY, "ServeReplica:minilm--fp32:", "ServeReplica:minilm--int8-ort:", QUALITY)
WARM_S = 10.0
START_S = 300
STOP_S = 90

FAULTS = {
    "kill": ("SIGKILL of all processes of a node", RayNode.kill),
    "unplug": ("a node's network is cut", RayNode.unplug),
}


@dataclass(frozen=True, slots=True)
class NodesService:
    """A service on several nodes that is well.

    Attributes:
        nodes: The first is the head.
        url: Of the head's proxy.
        process: Of ``quantserve serve``, seen from here.
        log: What it printed.
    """

    nodes: Sequence[RayNode]
    url: str
    process: subprocess.Popen[bytes]
    log: Folder

    def titles(self, node: RayNode) -> list[str]:
        """What each process of a node says it is."""
        found = []
        for process in node.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(" ".join(process.cmdline()))
        return found

    def has(self, node: RayNode, title: str) -> bool:
        """Whether a node runs a process of that title."""
        return any(title in said for said in self.titles(node))

    def victim(self) -> RayNode:
        """A node but the head that has a replica; without a gateway if there is such a node."""
        found = [
            node
            for node in self.nodes[1:]
            if any(self.has(node, f"ServeReplica:minilm--{variant}:") for variant in VARIANTS)
        ]
        return min(found, key=lambda node: self.has(node, GATEWAY))


@contextlib.contextmanager
def service_on_nodes(count: int, folder: Folder) -> Iterator[NodesService]:
    """Start nodes and a service on them, wait until all replicas run, and stop both in the end."""
    with ray_nodes(count, folder) as (nodes, environment):
        head, log = nodes[0], folder / "service.log"
        command = [sys.executable, "-m", "serving", "serve", str(CONFIG)]
        command += ["--address", f"{head.address}:{GCS_PORT}", "--port", f"{PORT}"]
        with log.open("wb") as out:
            process = subprocess.Popen(
                head.command(*command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        service = NodesService(nodes, f"http://{head.address}:{PORT}", process, log)
        try:
            _wait_until_complete(service)
            yield service
        finally:
            _stop(process)


def _wait_until_complete(service: NodesService) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert service.process.poll() is None, service.log.read_text()
        if replicas(service.url) == dict.fromkeys(VARIANTS, REPLICAS):
            return
        time.sleep(POLL_S)
    raise AssertionError(f"not complete within {START_S} s: {service.log.read_text()}")


def replicas(url: str) -> Mapping[str, int]:
    """How many replicas of each variant run, as the service says; empty while it does not."""
    with contextlib.suppress(httpx.HTTPError, LookupError, ValueError):
        answer: dict[str, Any] = httpx.get(f"{url}/v1/models", timeout=5).json()
        models = [model["quantserve"] for model in answer["data"]]
        return {model["variant"]: model["replicas"] for model in models if model["ready"]}
    return {}


def _stop(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C would; ``nsenter`` passes no signal on."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children():
            child.terminate()
    process.wait(STOP_S)


async def strike(
    service: NodesService, victim: RayNode, fault: str, known: Known, seed: int
) -> FaultRow:
    """Do a fault to a node under load, and say what came of it."""
    what, begin = FAULTS[fault]
    if service.has(victim, GATEWAY):
        what += ", which has a gateway"
    workload = Workload(service.url, known, RATES, seed)
    load = asyncio.create_task(workload.run())
    try:
        await asyncio.sleep(WARM_S)
        begun = clock()
        await asyncio.to_thread(begin, victim)
        struck = clock()
        while clock() < struck + LONGEST_S:
            await asyncio.sleep(POLL_S)
            if is_well_again(workload, begun, struck):
                break
    finally:
        workload.stop()
        await load
    until = workload.stopped_at
    return FaultRow(
        fault=what,
        lasted_s=0,
        paths={path: path_row(workload.log, path, begun, struck, until) for path in Path},
        fired={},
        expected=(),
        touched=touched(workload.log, begun),
        may_lose=(),
    )


def known_answers(service: NodesService) -> Known:
    """What each variant answers while nothing is wrong."""
    return ask_known(service.url, questions({("minilm", name): "embeddings" for name in VARIANTS}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"of {', '.join(FAULTS)}")
    parser.add_argument("--seed", type=int, default=1, help="of the load")
    given = parser.parse_args()
    rows = []
    for fault in given.faults or FAULTS:
        with (
            tempfile.TemporaryDirectory() as folder,
            service_on_nodes(NODES, Folder(folder)) as service,
        ):
            for node in service.nodes:
                titles = " ".join(service.titles(node))
                print(node.address, {role: titles.count(role) for role in ROLES if role in titles})
            known, victim = known_answers(service), service.victim()
            rows.append(asyncio.run(strike(service, victim, fault, known, given.seed)))
            print(table(rows[-1:]), replicas(service.url), sep="\n", flush=True)
    print("", conditions(len(os.sched_getaffinity(0))), "", table(rows), sep="\n")
    broken = [f"{row.fault}: {said}" for row in rows for said in row.broken]
    print(*broken, sep="\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
