"""``quantserve loadtest`` and ``python -m loadtests``."""

from __future__ import annotations

import asyncio
import os
import resource
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loadtests.libraries import require_libraries
from loadtests.plan import LoadPlan, find_plan, load_plan
from loadtests.results import Peak, Results, ScenarioResult, write_results
from serving.errors import ConfigError, QuantserveError

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

SPARE_FILES = 100


def loadtest(
    plan: Annotated[str, typer.Argument(help="YAML file, or the name of a shipped plan.")],
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for what is found; a new one by default.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Address of the server, not the plan's.")] = None,
    find_peak: Annotated[
        bool, typer.Option("--find-peak", help="Search the highest rate that meets the SLO.")
    ] = False,
) -> None:
    """Load a server as PLAN says, and write what every variant gave. Status 2: not valid.

    Ctrl-C writes what was found until then; a second one ends at once.
    """
    try:
        require_libraries()
        path = find_plan(plan)
        read = load_plan(path, url)
        allow_connections(*read.most_connections)
        folder = out_folder or Path(f"loadtest-{path.stem}-{datetime.now():%Y%m%d-%H%M%S}")
        check_folder(folder)
        results = run(read, path.parent, find_peaks=find_peak)
        out.print(f"results: {write_results(results, folder)}", soft_wrap=True)
        from loadtests.report.files import write_report  # as slow to import as ``run``'s

        out.print(f"report: {write_report(results, folder)}", soft_wrap=True)
    except QuantserveError as error:
        err.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None
    for scenario in results.scenarios:
        out.print(summary_table(scenario))
        for peak in scenario.peaks:
            if peak.note:
                text = f"{scenario.name}, {peak.variant}: highest rate: {peak.note}"
                out.print(escape(text), soft_wrap=True)
    for problem in results.problems:
        err.print(f"[bold red]NOT VALID:[/] {escape(problem)}", soft_wrap=True)
    if not results.is_valid:
        raise typer.Exit(2)


def run(plan: LoadPlan, folder: Path, *, find_peaks: bool) -> Results:
    """Run a plan, and show it while it runs.

    Raises:
        ConfigError: See ``run_plan``.
    """
    # SciPy takes a while to import; `quantserve --help` should not wait for it.
    from loadtests.live import live
    from loadtests.runner import run_plan

    with live(err) as observe:
        return asyncio.run(run_plan(plan, folder, observe, find_peaks=find_peaks))


def check_folder(folder: Path) -> None:
    """See that results can be written there, before it takes minutes to find them.

    Raises:
        ConfigError: They cannot.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ConfigError(f"--out {folder}: {there} is not a folder that can be written to")


def allow_connections(key: str, connections: int) -> None:
    """Raise this process's limit of open files to what the plan needs.

    Args:
        key: Of the plan, which asks for most.
        connections: At once.

    Raises:
        ConfigError: It may not be raised so far.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigError(
            f"{key}: {connections} connections need {needed} open files, the system "
            f"allows {hard}; lower it, or raise the limit (ulimit -n)"
        )
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def summary_table(scenario: ScenarioResult) -> Table:
    """One row per variant, the figures as in the report."""
    from loadtests.report.tables import figure  # as slow to import as ``run``'s

    table = Table(
        title=f"{scenario.name}: {scenario.operation}; latency in ms from the planned time; "
        "(low … high): 95 %",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("variant", no_wrap=True)
    columns = ("offered/s", "achieved/s", "p50", "p99", "errors", "SLO met, %", "agreement")
    peaks = {peak.variant: peak for peak in scenario.peaks}
    for column in (*columns, *(["peak/s"] if peaks else [])):
        table.add_column(column, justify="right")
    for variant in scenario.variants:
        latency, agreed = variant.latency, variant.agreement
        cells = [
            escape(variant.variant) + (" [red]![/]" if variant.problems or variant.stopped else ""),
            figure(variant.offered_rate.value),
            figure(variant.achieved_rate),
            figure(latency.p50 if latency else None, 1e3),
            figure(latency.p99 if latency else None, 1e3),
            str(sum(variant.errors.values())),
            figure(variant.slo_attainment, 100),
            figure(agreed.estimate.value if agreed else None, 1, 4),
        ]
        if peaks:
            cells.append(_peak(peaks.get(variant.variant)))
        table.add_row(*cells)
    return table


def _peak(peak: Peak | None) -> str:
    if peak is None:
        return "–"
    rate = "–" if peak.rate is None else f"{peak.rate:.1f}"
    missed = "" if peak.missed_at is None else f", missed at {peak.missed_at:.1f}"
    return f"{rate}{missed}"
