"""Finds how many threads a variant's passes are worth on this machine, once for each artifact."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from serving.artifacts import Artifact
from serving.artifacts.pass_times import read_pass_times, write_pass_times
from serving.cores.thread_choice import choose_threads, measure_passes, thread_counts
from serving.errors import RequestError
from serving.machine.cores import available_cores
from serving.machine.cpu_use import cores_of_others, read_cpu_use
from serving.replica.loading_turn import loading_turn, open_turns
from serving.seams import Cores

logger = logging.getLogger("ray.serve.quantserve")

QUIET_CORES = 0.5
"""A measurement counts if other processes kept no more cores busy meanwhile. An idle service and
whoever looks at it take some of that; of each number of threads the shortest pass counts."""

LOOK_S = 1.0
FIRST_PAUSE_S, PAUSE_S = 3.0, 15.0
"""Before the first look whether the machine is quiet, and between two."""


async def choose_when_quiet(
    artifact: Artifact,
    cores: Cores,
    run_pass: Callable[[], Awaitable[float]],
    draft: Artifact | None = None,
) -> None:
    """Limit the cores that are taken to what saves time.

    What was measured on this kind of CPU is used at once. Else passes are timed as soon as the
    machine is quiet: while others load or answer, every number of threads looks wrong, and what is
    found is kept. So replicas of a node measure one after the other, when none loads. Until then
    nothing is limited.

    Args:
        artifact: Whose passes they are.
        cores: What is limited.
        run_pass: Runs an ordinary pass in the background; returns its seconds without waiting.
            Raises ``RequestError`` while there is other work.
        draft: What proposes tokens in such a pass; None if nothing does.
    """
    most = available_cores()
    if most == 1:
        return
    times = read_pass_times(artifact, draft)
    pause = FIRST_PAUSE_S
    while times is None:
        await asyncio.sleep(pause)
        async with loading_turn(open_turns(), num_turns=1):
            times = await _measure(most, cores, run_pass)
        cores.limit(most)
        pause = PAUSE_S
        if times is not None:
            await asyncio.to_thread(write_pass_times, artifact, times, draft)
    cores.limit(choose_threads(times))
    shown = ", ".join(f"{count}: {seconds * 1e3:.1f} ms" for count, seconds in times.items())
    logger.info("a pass by number of threads: %s; takes %d", shown, choose_threads(times))


async def _measure(
    most: int, cores: Cores, run_pass: Callable[[], Awaitable[float]]
) -> dict[int, float] | None:
    """Time passes; None if the machine was not quiet before and meanwhile."""
    before = read_cpu_use()
    await asyncio.sleep(LOOK_S)
    if cores_of_others(before, read_cpu_use()) > QUIET_CORES or cores.others_are_active():
        return None

    async def run(count: int) -> float:
        cores.limit(count)
        return await run_pass()

    before = read_cpu_use()
    try:
        times = await measure_passes(thread_counts(most), run)
    except RequestError:
        return None
    return times if cores_of_others(before, read_cpu_use()) <= QUIET_CORES else None
