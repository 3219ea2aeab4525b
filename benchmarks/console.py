"""CPU that an open console costs the service, visible and hidden.

Run as ``python -m benchmarks.console``. It starts the demo, waits until every variant is ready and
no replica computes any more, opens the console in Debian's Chromium, and reads every process's CPU
time from the kernel's books over turns without it, with its tab visible, and with its tab hidden.
The browser itself is not counted. Differences are taken round by round.

Evidence is kept from run to run, so that only the first one waits for the probes: minutes. After
that it takes some three minutes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks.conditions import conditions
from benchmarks.idle import describe, read_cpu, wait_until_quiet
from serving.demo import DEMO_CONFIG
from tests.integration.running_service import RunningService

SETTLE_S = 3.0

EVIDENCE = Path.home() / ".cache" / "quantserve" / "benchmarks" / "console-evidence"

Shares = dict[str, float]
"""Of a core, by kind of process."""


def main() -> None:
    """Measure, and print each turn and the differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=DEMO_CONFIG)
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pages", nargs="+", default=["fleet"])
    parser.add_argument("--evidence", type=Path, default=EVIDENCE, metavar="FOLDER")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    print(conditions(len(os.sched_getaffinity(0))))
    environment = {"QUANTSERVE_EVIDENCE__FOLDER": str(arguments.evidence)}
    environment |= dict(setting.split("=", 1) for setting in arguments.set)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "service.log")
        service = RunningService(arguments.config, log, environment=environment)
        try:
            service.wait_until_settled()
            print(f"ready after {time.monotonic() - started:.0f} s")
            wait_until_quiet(service)
            print(f"quiet after {time.monotonic() - started:.0f} s")
            measure(service, arguments.pages, arguments.rounds, arguments.seconds)
        finally:
            service.stop()
    print(f"over after {time.monotonic() - started:.0f} s")


def measure(service: RunningService, pages: list[str], rounds: int, seconds: float) -> None:
    """Take the turns."""
    found: dict[str, list[Shares]] = defaultdict(list)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        for _ in range(rounds):
            found["closed"].append(turn(service, seconds))
            for name in pages:
                page = browser.new_page()
                asked = requests_of(page)
                page.goto(f"{service.url}/#/{name}")
                page.locator(".tools .state", has_text="live").wait_for()
                asked.clear()
                found[name].append(turn(service, seconds))
                num_open = len(asked)
                hide(page)
                asked.clear()
                found[f"{name}, hidden"].append(turn(service, seconds))
                print(f"{name}: {num_open} requests of the tab, {len(asked)} while hidden")
                page.close()
        browser.close()
    report(found)


def requests_of(page: Page) -> list[str]:
    """A list that grows by the address of each request of a tab."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    return asked


def hide(page: Page) -> None:
    """Do what a browser does when its user looks at another tab."""
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {value: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    page.locator(".tools .state", has_text="paused").wait_for()


def turn(service: RunningService, seconds: float) -> Shares:
    """Read what each kind of process takes for a while."""
    time.sleep(SETTLE_S)
    before = read_cpu(service)
    time.sleep(seconds)
    after = read_cpu(service)
    shares: Shares = defaultdict(float)
    for process, spent in after.items():
        shares[describe(process)] += (spent - before.get(process, spent)) / seconds
    return shares


def report(found: dict[str, list[Shares]]) -> None:
    """Print what was found, in percent of a core."""
    without = found["closed"]
    for name, turns in found.items():
        totals = [100 * sum(shares.values()) for shares in turns]
        print(f"{name}: {_listed(totals)} % of a core, all processes of the service")
        if name == "closed":
            continue
        more = [
            total - 100 * sum(shares.values())
            for total, shares in zip(totals, without, strict=True)
        ]
        print(f"  more than closed: median {statistics.median(more):+.2f} ({_listed(more)})")
        for kind in sorted({kind for shares in turns for kind in shares}):
            pairs = zip(turns, without, strict=True)
            of_kind = [100 * (one.get(kind, 0) - other.get(kind, 0)) for one, other in pairs]
            if abs(statistics.median(of_kind)) >= 0.05:
                print(f"    {kind}: {statistics.median(of_kind):+.2f} ({_listed(of_kind)})")


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


if __name__ == "__main__":
    main()
