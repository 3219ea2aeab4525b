"""Runs a plan: rounds, in each every scenario, in each every variant's turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from loadtests.conditions import conditions
from loadtests.plan import LoadPlan
from loadtests.results import Results, ScenarioResult
from loadtests.scenario_run import Observe, ScenarioRun
from loadtests.target import list_variants
from serving.errors import QuantserveError


async def run_plan(
    plan: LoadPlan, folder: Path, observe: Observe, *, find_peaks: bool = False
) -> Results:
    """Run all rounds, then, if asked to, search every variant's peak.

    If the task is cancelled or something fails once a turn is over, what was found so far is
    returned, with a problem that says so.

    Args:
        plan: What to do.
        folder: What file names in the plan are relative to.
        observe: Is told once a second where a turn stands; has to be quick.
        find_peaks: Whether to search.

    Raises:
        ConfigError: The target does not answer or lacks something, a file is missing or wrong, or
            a peak is asked for where there is no SLO or no single rate. Before the first request.
    """
    started, begun = datetime.now(UTC), time.monotonic()
    entries = await list_variants(plan.target)
    runs = [ScenarioRun(plan, scenario, entries, folder, observe) for scenario in plan.scenarios]
    if find_peaks:
        for run in runs:
            run.check_peaks()
    interrupted = ""
    stage = ""
    try:
        for number in range(plan.rounds):
            stage = f"round {number + 1}"
            for run in runs:
                await run.run_round(number)
        stage = "the search for the peaks"
        for run in runs if find_peaks else ():
            await run.search_peaks()
    except (asyncio.CancelledError, Exception) as error:
        if not any(run.is_begun for run in runs):
            raise
        interrupted = f"interrupted in {stage}{_reason(error)}"
    scenarios = [run.result() for run in runs if run.is_begun]
    return Results(
        plan=plan.model_dump(mode="json"),
        started_at=started.isoformat(timespec="seconds"),
        wall_s=round(time.monotonic() - begun, 3),
        conditions=conditions(),
        problems=(*([interrupted] if interrupted else []), *_problems(scenarios)),
        scenarios=tuple(scenarios),
    )


def _reason(error: BaseException) -> str:
    """Nothing more to say of Ctrl-C."""
    if isinstance(error, asyncio.CancelledError):
        return ""
    return f": {error}" if isinstance(error, QuantserveError) else f": {error!r}"


def _problems(scenarios: list[ScenarioResult]) -> Iterator[str]:
    for scenario in scenarios:
        for variant in scenario.variants:
            for problem in variant.problems:
                yield f"{scenario.name}, {variant.variant}: {problem}"
