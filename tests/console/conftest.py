"""A real Chromium on the demo, once for all tests of the console."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.console.opened import Console
from tests.integration.demo_service import AUTHORIZED, KEY
from tests.integration.running_service import RunningService

ROOT = Path(__file__).parents[2]
AXE = ROOT / "console" / "node_modules" / "axe-core" / "axe.min.js"
ENCODERS = ("minilm", "sentiment")
MEASURED_S = 600

# The replicas' probes go on beside the tests, and the browser waits for its share of the cores.
expect.set_options(timeout=30_000)


def _missing(what: str) -> None:
    pytest.fail(what) if os.environ.get("CI") else pytest.skip(what)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        _missing("chromium is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        # Chromium has no sandbox for root, which containers run tests as.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def service(demo: RunningService) -> RunningService:
    """The demo, once the encoders are measured."""
    wait_until_measured(demo.url)
    return demo


def wait_until_measured(url: str) -> None:
    """Wait until the encoders' probes are over: before, nobody knows what ``auto`` would choose."""
    deadline = time.monotonic() + MEASURED_S
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError, KeyError):  # the quality process starts last
            models = httpx.get(f"{url}/v1/quality", headers=AUTHORIZED, timeout=30).json()["data"]
            states = [
                variant["probes"]["state"]
                for model in models
                if model["model"] in ENCODERS
                for variant in model["variants"]
            ]
            if states and set(states) == {"done"}:
                return
        time.sleep(1)
    raise AssertionError(f"the probes of {ENCODERS} are not over within {MEASURED_S} s")


@pytest.fixture
def console(browser: Browser, service: RunningService) -> Iterator[Console]:
    """A tab that has the key; what it says on its console must be nothing."""
    with Console(browser, service.url, KEY) as opened:
        yield opened
        assert opened.problems == []


@pytest.fixture
def page(console: Console) -> Page:
    """The tab's page."""
    return console.page


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core's source."""
    if not AXE.is_file():
        _missing("axe-core is missing: run `console/check`, which has npm install it")
    return AXE.read_text(encoding="utf-8")
