"""Runs a plan: rounds, in each every scenario, in each every variant's turn."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

from loadtests.conditions import conditions
from loadtests.plan import Plan
from loadtests.results import Results, ScenarioResult
from loadtests.scenario_run import Observe, ScenarioRun
from loadtests.target import list_variants


async def run_plan(
    plan: Plan, folder: Path, observe: Observe, *, find_peaks: bool = False
) -> Results:
    """Run all rounds, then, if asked to, search every variant's peak.

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
    for number in range(plan.rounds):
        for run in runs:
            await run.run_round(number)
    scenarios = [run.result() for run in runs]
    if find_peaks:
        for place, run in enumerate(runs):
            peaks = tuple([await run.search_peak(variant) for variant in run.contest.variants])
            scenarios[place] = scenarios[place].model_copy(update={"peaks": peaks})
    return Results(
        plan=plan.model_dump(mode="json"),
        started_at=started.isoformat(timespec="seconds"),
        wall_s=round(time.monotonic() - begun, 3),
        conditions=conditions(),
        problems=tuple(_problems(scenarios)),
        scenarios=tuple(scenarios),
    )


def _problems(scenarios: list[ScenarioResult]) -> list[str]:
    return [
        f"{scenario.name}, {variant.variant}: {problem}"
        for scenario in scenarios
        for variant in scenario.variants
        for problem in variant.problems
    ]
