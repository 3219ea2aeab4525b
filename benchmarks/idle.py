"""CPU that the demo takes while nobody asks anything of it, and how fast it recovers.

Run as ``python -m benchmarks.idle``. It starts the demo, waits until every variant is ready and no
replica computes any more, and reads every process's CPU time from the kernel's books before and
after ``--seconds``. Then it kills replicas and measures how long their variant does not answer.
``--set NAME=VALUE`` changes a variable of the service's environment, to compare settings of Ray.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import httpx
import psutil

from benchmarks.conditions import conditions
from serving.demo import DEMO_CONFIG
from tests.integration.running_service import RunningService

KILLED = ("minilm", "int8-dynamic")
REPLICA = "replica of a variant"
SETTLE_S = 10.0
QUIET_SHARE = 0.03
"""Of a core: a replica that takes less answers nobody, not even probes."""

PHASE_S = 2.7
"""By how much each kill comes later than the last: not all shall follow a health check."""

POLL_S = 0.05
LIMIT_S = 180.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=DEMO_CONFIG)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    print(conditions(len(os.sched_getaffinity(0))))
    environment = dict(setting.split("=", 1) for setting in arguments.set)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        service = RunningService(
            arguments.config, Path(folder, "service.log"), environment=environment
        )
        try:
            service.wait_until_settled()
            print(f"ready after {time.monotonic() - started:.1f} s")
            wait_until_quiet(service)
            print(f"quiet after {time.monotonic() - started:.1f} s")
            report_idle(service, arguments.seconds)
            report_recovery(service, arguments.kills)
        finally:
            service.stop()


def wait_until_quiet(service: RunningService) -> None:
    """Wait until every replica has done nothing for a while; probes come first."""
    busy = True
    while busy:
        before = read_cpu(service)
        time.sleep(SETTLE_S)
        after = read_cpu(service)
        shares = {
            process: (after[process] - before.get(process, 0)) / SETTLE_S for process in after
        }
        busy = any(
            share > QUIET_SHARE for process, share in shares.items() if describe(process) == REPLICA
        )


def report_idle(service: RunningService, seconds: float) -> None:
    """Print the share of a core that each kind of process took, the largest first."""
    before = read_cpu(service)
    time.sleep(seconds)
    after = read_cpu(service)
    shares: dict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for process, spent in after.items():
        kind = describe(process)
        counts[kind] += 1
        shares[kind] += (spent - before.get(process, spent)) / seconds
    print(f"\nidle for {seconds:g} s, percent of a core")
    print(f"  {'':40} {'processes':>9} {'together':>9} {'each':>7}")
    for kind, share in sorted(shares.items(), key=lambda item: -item[1]):
        each = share / counts[kind]
        print(f"  {kind:40} {counts[kind]:9} {100 * share:9.2f} {100 * each:7.2f}")
    print(f"  {'all':40} {counts.total():9} {100 * sum(shares.values()):9.2f}")


def read_cpu(service: RunningService) -> dict[psutil.Process, float]:
    """Seconds of CPU that each process of the service has taken."""
    found = {}
    for process in [psutil.Process(service.process.pid), *service.descendants()]:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            times = process.cpu_times()
            found[process] = times.user + times.system
    return found


def describe(process: psutil.Process) -> str:
    """What a process is, replicas of variants taken together."""
    with contextlib.suppress(psutil.Error):
        command = " ".join(process.cmdline())
        if "ServeReplica:" in command:
            name = command.split("ServeReplica:")[1].split(":")[0]
            return REPLICA if "--" in name else name
        if command.startswith("ray::"):
            # An actor's title has the method that it is in the middle of.
            return command.split()[0].removeprefix("ray::").partition(".")[0]
        for part in command.split():
            if part.endswith(".py"):
                return Path(part).name
        return process.name()
    return "ended"


def report_recovery(service: RunningService, kills: int) -> None:
    """Print after how long a variant answers again whose replica was killed."""
    model, variant = KILLED
    url = f"{service.url}/{model}/{variant}/v1/embeddings"
    away = []
    for kill in range(kills):
        time.sleep(SETTLE_S + kill * PHASE_S)
        (replica,) = service.replica_processes(model, variant)
        replica.kill()
        started = time.monotonic()
        wait_for_answer(url, "a", expected=False)
        wait_for_answer(url, "a", expected=True)
        away.append(time.monotonic() - started)
    if away:
        middle, each = statistics.median(away), ", ".join(f"{seconds:.1f}" for seconds in away)
        print(f"\n{model}:{variant} answers again {middle:.1f} s after a kill ({each})")


def wait_for_answer(url: str, text: str, *, expected: bool) -> None:
    """Ask until the answer is there, or is no more."""
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        try:
            found = httpx.post(url, json={"input": text}, timeout=5).status_code == 200
        except httpx.HTTPError:
            found = False
        if found == expected:
            return
        time.sleep(POLL_S)
    raise AssertionError(f"not within {LIMIT_S} s")


if __name__ == "__main__":
    main()
