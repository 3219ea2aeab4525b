"""Finds how many threads a variant's passes are worth on this machine, once for each artifact."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence

from serving.artifacts import Artifact
from serving.artifacts.pass_times import read_pass_times, write_pass_times
from serving.cores.thread_choice import choose_threads, measure_passes, thread_counts
from serving.machine.cores import available_cores
from serving.seams import Cores

logger = logging.getLogger("ray.serve.quantserve")


def limit_to_useful_cores(
    artifact: Artifact,
    cores: Cores,
    use_cores: Callable[[Sequence[int]], None],
    run_pass: Callable[[], object],
) -> None:
    """Limit the cores that are taken to what saves time; measured unless that is known already.

    Call it in the thread that runs the passes. The passes are background work: they wait for what
    somebody waits for. If the cores were never free, nothing is limited, and nothing is kept.

    Args:
        artifact: Whose passes they are.
        cores: What is limited.
        use_cores: The engine's.
        run_pass: Runs an ordinary pass.
    """
    most = available_cores()
    if most == 1:
        return

    def run(count: int) -> float:
        cores.limit(count)
        taken = cores.take(background=True)
        if len(taken) < count:
            return math.inf
        use_cores(taken)
        started = time.perf_counter()
        run_pass()
        return time.perf_counter() - started

    times = read_pass_times(artifact)
    if times is None:
        times = measure_passes(thread_counts(most), run)
        cores.give_back()
        if math.inf in times.values():
            cores.limit(most)
            return
        write_pass_times(artifact, times)
    cores.limit(choose_threads(times))
    shown = ", ".join(f"{count}: {seconds * 1e3:.1f} ms" for count, seconds in times.items())
    logger.info("a pass by number of threads: %s", shown)
