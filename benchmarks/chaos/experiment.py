"""One fault under load: from a warm service until it is well again, or too long."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path as Folder
from typing import Any

from benchmarks.chaos.checker import CALM_S, FaultRow, path_row, recovered_s, touched
from benchmarks.chaos.log import Path
from benchmarks.chaos.plan import Planned
from benchmarks.chaos.running import Prey
from benchmarks.chaos.workload import Workload, clock
from tests.integration.running_prometheus import RunningPrometheus, running_prometheus

RATES = {
    "minilm:fp32": 4.0,
    "minilm:int8-dynamic": 3.0,
    "minilm:obedient": 3.0,
    "smollm2:q4_1": 1.0,
}
"""Requests a second, half of them on each path."""

WARM_S = 12.0
"""Load before the fault; Prometheus has two scrapes by then, of which rates are made."""

AFTERWARDS_S = 10.0
"""Load after all was well again."""

LONGEST_S = 120.0
"""So long after its end a fault is watched."""

POLL_S = 0.5


async def run_fault(planned: Planned, prey: Prey, seed: int) -> FaultRow:
    """Do it to a service that is well, and say what came of it.

    Args:
        planned: What.
        prey: The service.
        seed: Of the load.
    """
    workload = Workload(prey.service.url, prey.known, RATES, seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_prometheus(prey.targets, Folder(folder)) as prometheus,
    ):
        load = asyncio.create_task(workload.run())
        try:
            await asyncio.sleep(WARM_S)
            begun, begun_at = clock(), time.time()
            try:
                await asyncio.to_thread(planned.fault.begin, prey.victim)
                struck = clock()
                await _lasting(planned, prometheus, begun_at)
            finally:
                await asyncio.to_thread(planned.fault.end, prey.victim)
            ended = clock()
            await _watch(planned, workload, prometheus, begun, begun_at)
        finally:
            workload.stop()
            await load
        fired = await asyncio.to_thread(fired_since, prometheus, begun_at)
    until = workload.stopped_at
    return FaultRow(
        fault=planned.what,
        lasted_s=ended - begun if planned.least_s else 0,
        paths={path: path_row(workload.log, path, begun, struck, until) for path in Path},
        fired=fired,
        expected=planned.alerts,
        touched=touched(workload.log, begun),
        may_lose=planned.may_lose,
    )


async def _lasting(planned: Planned, prometheus: RunningPrometheus, begun_at: float) -> None:
    begun = clock()
    await asyncio.sleep(planned.least_s)
    while not await _all_fired(planned, prometheus, begun_at):
        if clock() > begun + planned.most_s:
            return
        await asyncio.sleep(POLL_S)


async def _watch(
    planned: Planned,
    workload: Workload,
    prometheus: RunningPrometheus,
    begun: float,
    begun_at: float,
) -> None:
    """Wait until all is well for long enough, and every alert has fired that has to."""
    ended = clock()
    while clock() < ended + LONGEST_S:
        await asyncio.sleep(POLL_S)
        if is_well_again(workload, begun, ended) and await _all_fired(
            planned, prometheus, begun_at
        ):
            return


def is_well_again(workload: Workload, begun: float, ended: float) -> bool:
    """Whether all has been right and in time for long enough since a fault.

    Args:
        workload: Of the run.
        begun: When the fault began.
        ended: When it was over.
    """
    until = min(clock(), workload.oldest_waiting())
    log = [one for one in workload.log if one.ended >= begun and one.sent <= until]
    back = recovered_s(log, begun, until)
    return back is not None and until - max(begun + back, ended) >= max(AFTERWARDS_S, CALM_S)


async def _all_fired(planned: Planned, prometheus: RunningPrometheus, begun_at: float) -> bool:
    if not planned.alerts:
        return True
    fired = await asyncio.to_thread(fired_since, prometheus, begun_at)
    return set(planned.alerts) <= set(fired)


def fired_since(prometheus: RunningPrometheus, begun_at: float) -> dict[str, tuple[str, ...]]:
    """Alerts that have fired since a Unix time, by their names, with what they were of."""
    series: list[dict[str, Any]] = prometheus.get(
        "query_range",
        query='ALERTS{alertstate="firing"}',
        start=f"{begun_at:.3f}",
        end=f"{time.time():.3f}",
        step="1s",
    )["result"]
    found: dict[str, set[str]] = {}
    for labels in (one["metric"] for one in series):
        of = ":".join(filter(None, (labels.get("model"), labels.get("variant"))))
        found.setdefault(labels["alertname"], set()).update(
            filter(None, [of or labels.get("proxy")])
        )
    return {name: tuple(sorted(found[name])) for name in sorted(found)}
