"""Takes the console's pictures: ``python -m tests.console.pictures --out docs/pictures``.

It starts the demo with the shipped reports, has it compare the live requests of one model, waits
until the probes are answered, sends requests for a while, and photographs each page. ``--url``
takes a service that runs already instead.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml
from playwright.sync_api import Browser, Page, sync_playwright

from serving.demo import DEMO_CONFIG
from serving.demo.reviews import TEST_FILE
from tests.console.opened import PHONE, WIDE, Console
from tests.integration.demo_service import with_comparisons
from tests.integration.running_service import RunningService

REPORTS = Path(__file__).parents[2] / "docs" / "reports"
SHOWN_MS = 180_000

Pages = dict[str, tuple[str, Callable[[Page], None]]]

PRESSES = 6
"""Of an arrow key, each of which moves a limit by 24 pixels."""

LOADS: dict[tuple[str, str], tuple[str, dict[str, object]]] = {
    ("/v1/embeddings", "minilm"): ("input", {}),
    ("/v1/classify", "sentiment"): ("input", {}),
    ("/v1/completions", "smollm2"): ("prompt", {"max_tokens": 8}),
}
"""Requests of the demo's models by route and model: the field for a text, and the others."""


def main() -> None:
    """Photograph."""
    parser = argparse.ArgumentParser(prog="python -m tests.console.pictures", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"), metavar="FOLDER")
    parser.add_argument("--url", help="of a service that runs")
    parser.add_argument("--load", type=float, default=120, metavar="SECONDS")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    with _service(chosen.url) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        with _load(url), Console(browser, url, None) as console:
            page = console.open("fleet")
            time.sleep(chosen.load)  # the plots are of the last minutes
            _save(page, chosen.out, "fleet")
            _take(browser, url, chosen.out, LOADED)
        _take(browser, url, chosen.out, QUIET)
        _phone(browser, url, chosen.out)
        browser.close()


def _take(browser: Browser, url: str, out: Path, pages: Pages) -> None:
    for name, (link, prepare) in pages.items():
        with Console(browser, url, None) as console:
            prepare(console.open(link))
            _save(console.page, out, name)


@contextmanager
def _service(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory() as folder:
        environment = {"QUANTSERVE_REPORTS__FOLDER": str(REPORTS)}
        config = Path(folder, "config.yaml")
        config.write_text(yaml.safe_dump(with_comparisons(yaml.safe_load(DEMO_CONFIG.read_text()))))
        service = RunningService(config, Path(folder, "log"), environment=environment)
        try:
            service.wait_until_settled()
            service.wait_until_probed()
            yield service.url
        finally:
            service.stop()


@contextmanager
def _load(url: str) -> Iterator[None]:
    """Send requests to all variants until the end."""
    over = threading.Event()
    with httpx.Client(base_url=url, timeout=60) as http:
        entries = [entry["quantserve"] for entry in http.get("/v1/models").json()["data"]]
    threads = [
        threading.Thread(
            target=_send,
            args=(
                url,
                path,
                field,
                more,
                [e["variant"] for e in entries if e["model"] == model],
                model,
                over,
            ),
        )
        for (path, model), (field, more) in LOADS.items()
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _send(
    url: str,
    path: str,
    field: str,
    more: dict[str, object],
    variants: list[str],
    model: str,
    over: threading.Event,
) -> None:
    chance = random.Random(0)
    texts = [json.loads(line)["input"] for line in TEST_FILE.read_text().splitlines()]
    with httpx.Client(base_url=url, timeout=60) as http:
        while not over.wait(chance.expovariate(4)):
            body = {"model": f"{model}:{chance.choice(variants)}", field: chance.choice(texts)}
            http.post(path, json={**body, **more})


def _run_streams(page: Page) -> None:
    page.get_by_role("button", name="Run").click()
    page.locator(".answer[data-state=done] >> nth=4").wait_for(timeout=SHOWN_MS)


def _run_encoder(page: Page) -> None:
    page.get_by_role("button", name="Run").click()
    page.locator("section.model table >> nth=1").wait_for(timeout=SHOWN_MS)


def _see_choice(page: Page) -> None:
    page.locator("#choice").wait_for()
    page.locator(".pareto .point >> nth=5").wait_for()
    # Somewhere among them, whatever the machine makes of their times.
    page.get_by_role("slider", name="p95 at most").focus()
    for _ in range(PRESSES):
        page.keyboard.press("Shift+ArrowLeft")
    page.locator(".point.chosen").wait_for()


def _see_quality(page: Page) -> None:
    page.locator(".conclusions article").first.wait_for()
    page.locator(".course canvas").first.wait_for()


def _see_goodput(page: Page) -> None:
    page.locator("#choice").wait_for()
    page.locator(".pareto .point >> nth=3").wait_for(timeout=SHOWN_MS)


def _see_report(page: Page) -> None:
    page.locator(".document img").first.wait_for()
    page.evaluate("scrollTo(0, 0)")


TEXT = "Why do lighthouses flash?"
LOADED: Pages = {
    "goodput": ("compare?model=sentiment&x=goodput&p95=100", _see_goodput),
    "quality": ("quality?model=sentiment&span=15m", _see_quality),
}
"""Pages that are of live requests: by the picture's name the link, and what to wait for."""

QUIET: Pages = {
    "try": (f"try?model=smollm2&tokens=40&order=turns&text={TEXT}", _run_streams),
    "try-encoder": ("try?model=sentiment", _run_encoder),
    "compare": ("compare?model=minilm&agreement=0.9", _see_choice),
    "reports": ("reports?open=compare", _see_report),
}


def _phone(browser: Browser, url: str, out: Path) -> None:
    with Console(browser, url, None, size=PHONE, colours="dark") as console:
        _see_choice(console.open("compare?model=minilm&agreement=0.9"))
        _save(console.page, out, "phone")


def _save(page: Page, out: Path, name: str) -> None:
    """As much as two screens show: a long page would be unreadable at the size of a document."""
    time.sleep(0.5)
    size = page.viewport_size or WIDE
    tall = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": size["width"], "height": min(tall, int(1.4 * size["height"]))})
    time.sleep(0.3)
    page.screenshot(path=out / f"console-{name}.png")


if __name__ == "__main__":
    main()
