"""How many replicas and nodes a rate needs, from what a request was measured to take.

Run as ``python -m benchmarks.capacity``. It serves one variant of MiniLM whose replicas have a
thread each, and measures

- the peak rate of one replica and of two (``peak_rate.py``), with texts so long that the client
  takes little of the machine;
- the CPU time of a request on both paths at half of the peak, by party (``cpu_time.py``);
- the metrics page and what the idle service takes, with few replicas and with many.

Then it prints what ``--rates`` need, by ``needs``. On two cores only the first two steps of that
ladder can be tried.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psutil
import yaml

from benchmarks.conditions import conditions
from benchmarks.cpu_time import CpuAccount
from benchmarks.demo_variants import SOURCE
from benchmarks.http_load import measure
from benchmarks.peak_rate import VariantLoad, find_peak
from benchmarks.serving_path import per_request
from tests.integration.running_service import RunningService, running_service

LOAD = VariantLoad(
    "minilm",
    "int8-ort",
    "embeddings",
    {"synthetic": {"distribution": "constant", "mean": 80}},
    limit_ms=250,
    first_rate=10,
)
TEXT = "the story of a film that nobody will say who saw until the music comes back with rain " * 5
HEADROOM = 0.8
"""Share of the peak rate that a replica is planned for: peaks are of steady load."""

CPU_S = 10
IDLE_S = 20
SCRAPES = 10
READY_S = 300


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured; CPU in seconds of a core.

    Attributes:
        peak: Requests/s of one replica on one core within the limit.
        proxy_s: Of HAProxy, a request on the direct path.
        gateway_s: Of the gateway, a request on the selecting path.
    """

    peak: float
    proxy_s: float
    gateway_s: float


@dataclass(frozen=True, slots=True)
class Needs:
    """What a rate takes.

    Attributes:
        replicas: Of the variant, a core each.
        gateways: Processes, a core each; 0 on the direct path.
        proxies: Nodes whose HAProxy, of one thread, is kept below ``HEADROOM`` of a core.
        nodes: At least as many as proxies; cores are shared out to all of them.
    """

    replicas: int
    gateways: int
    proxies: int
    nodes: int


def needs(rate: float, costs: Costs, cores: int, *, is_selecting: bool) -> Needs:
    """What answers ``rate`` requests/s within the limit.

    A process of one core that is busy for a share ``u`` of the time keeps what arrives waiting for
    some ``u / (1 - u)`` times its service time, so none is planned beyond ``HEADROOM``.

    Args:
        rate: Requests/s, steady.
        costs: Measured on cores like those of the nodes.
        cores: Of a node.
        is_selecting: Whether requests go through the gateway.
    """
    replicas = math.ceil(rate / (HEADROOM * costs.peak))
    gateways = math.ceil(rate * costs.gateway_s / HEADROOM) if is_selecting else 0
    proxies = math.ceil(rate * costs.proxy_s / HEADROOM)
    busy = replicas + gateways + rate * costs.proxy_s
    return Needs(replicas, gateways, proxies, max(proxies, math.ceil(busy / cores)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--cores", type=int, default=16, help="of a node in the ladder")
    parser.add_argument("--many", type=int, default=16, help="replicas whose page is measured")
    given = parser.parse_args()
    print(conditions(len(os.sched_getaffinity(0))), flush=True)
    with _service(replicas=1) as service:
        one = find_peak(LOAD, service.url)
        print(f"peak of 1 replica: {one:.4g}/s within {LOAD.limit_ms} ms", flush=True)
        costs = _costs(service, one)
        _print_service(service, 1)
    with _service(replicas=2) as service:
        two = find_peak(replace(LOAD, first_rate=one), service.url)
        print(f"peak of 2 replicas: {two:.4g}/s, {two / one:.2f} of one's", flush=True)
        _print_service(service, 2)
    with _service(replicas=given.many) as service:
        _print_service(service, given.many)
    print(f"\nnodes of {given.cores} cores like these, {HEADROOM:.0%} of the peak\n")
    print("| requests/s | path | replicas | gateways | nodes for HAProxy | nodes |")
    print("|---|---|---|---|---|---|")
    for rate in given.rates:
        for path in ("direct", "selecting"):
            need = needs(rate, costs, given.cores, is_selecting=path == "selecting")
            print(
                f"| {rate:,.0f} | {path} | {need.replicas:,} | {need.gateways} | {need.proxies} "
                f"| {need.nodes} |"
            )


@contextmanager
def _service(replicas: int) -> Iterator[RunningService]:
    """One variant with so many replicas, all of which run."""
    variant = {
        "name": LOAD.variant,
        "recipe": "int8-dynamic",
        "runtime": "onnxruntime",
        "threads": 1,
        "replicas": replicas,
    }
    model = {"name": LOAD.model, "task": "embeddings", "source": SOURCE, "variants": [variant]}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        config.write_text(yaml.safe_dump({"models": [model]}))
        with running_service(config, Path(folder, "service.log")) as service:
            _wait_for(service, replicas)
            service.wait_until_probed()
            yield service


def _wait_for(service: RunningService, replicas: int) -> None:
    deadline = time.monotonic() + READY_S
    while _running(service) < replicas:
        assert time.monotonic() < deadline, f"{_running(service)} of {replicas} replicas run"
        time.sleep(1)


def _running(service: RunningService) -> int:
    answer = httpx.get(f"{service.url}/v1/models", timeout=30).json()
    return int(answer["data"][0]["quantserve"]["replicas"])


def _costs(service: RunningService, peak: float) -> Costs:
    """CPU of a request on both paths, four connections."""
    account = CpuAccount(service, LOAD.model, LOAD.variant)
    name = f"{LOAD.model}:{LOAD.variant}"
    ways = {
        "direct": (f"{service.url}/{LOAD.model}/{LOAD.variant}/v1/embeddings", {}),
        "selecting": (f"{service.url}/v1/embeddings", {"model": name}),
    }
    spent = {}
    for way, (url, named) in ways.items():
        bodies = [{"input": TEXT, "encoding_format": "base64", **named}]
        measure(url, bodies, 4, 1)
        before = account.read()
        got = measure(url, bodies, 4, CPU_S)
        spent[way] = per_request(account.spent(before, account.read()), got.requests)
        by_party = ", ".join(f"{party} {cpu:.2f}" for party, (cpu, _) in spent[way].items())
        print(f"CPU ms of a request, {way} path: {by_party}", flush=True)
    return Costs(peak, spent["direct"]["HAProxy"][0] / 1e3, spent["selecting"]["gateway"][0] / 1e3)


def _print_service(service: RunningService, replicas: int) -> None:
    """The page of metrics, and what the idle service takes of a core."""
    took = []
    size = 0
    for _ in range(SCRAPES):
        begun = time.perf_counter()
        size = len(httpx.get(f"{service.url}/metrics", timeout=30).content)
        took.append(time.perf_counter() - begun)
    before = _cpu_seconds(service)
    time.sleep(IDLE_S)
    shares = {
        party: (seconds - before.get(party, 0)) / IDLE_S
        for party, seconds in _cpu_seconds(service).items()
    }
    idle = ", ".join(f"{party} {share:.3f}" for party, share in shares.items())
    print(
        f"{replicas} replicas: page of metrics {size / 1e3:.0f} kB in "
        f"{statistics.median(took) * 1e3:.0f} ms; idle, of a core: {idle}",
        flush=True,
    )


PARTIES: Sequence[tuple[str, str]] = (
    ("ServeController", "controller"),
    ("ServeReplica:gateway:", "gateway"),
    ("ServeReplica:minilm", "replicas"),
)


def _cpu_seconds(service: RunningService) -> dict[str, float]:
    seconds = dict.fromkeys([party for _, party in PARTIES] + ["rest"], 0.0)
    for process in service.descendants():
        try:
            title, times = " ".join(process.cmdline()), process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        party = next((party for mark, party in PARTIES if mark in title), "rest")
        seconds[party] += times.user + times.system
    return seconds


if __name__ == "__main__":
    main()
