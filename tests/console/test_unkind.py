"""Hostile and clumsy use: markup, long texts, bad links, a service that is away, two tabs."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Dialog, Page, Request, Route, expect

from tests.console.opened import Console
from tests.integration.demo_service import KEY
from tests.integration.running_service import RunningService

MARKUP = "<img src=x onerror=alert(1)><b>bold</b><script>alert(2)</script>"
EVIL = (
    f"<h1>Evil</h1><style>body {{display: none}}</style><script>alert(1)</script>{MARKUP}"
    "<p style='color: red' onclick='alert(1)'>A paragraph</p><iframe src=/v1/models></iframe>"
    "<a href='javascript:alert(1)'>a link</a><form action=/><input></form><svg onload=alert(1)>"
    "</svg><table><tr><th>a</th></tr><tr><td><img src=x onerror=alert(1)>a cell</td></tr></table>"
    "<img src='http://elsewhere.invalid/x.png' alt='far'>"
)


@pytest.fixture
def alerts(page: Page) -> Iterator[list[str]]:
    """What a script that got in would say."""
    said: list[str] = []

    def note(dialog: Dialog) -> None:
        said.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", note)
    yield said
    assert said == []


def test_markup_that_is_tried_stays_text(page, console, alerts) -> None:
    console.open("try?model=sentiment")
    page.locator("#inputs").fill(MARKUP)
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("heading", name=MARKUP)).to_be_visible()
    expect(page.get_by_role("table", name=f"Answers to {MARKUP}")).to_be_visible()
    assert page.locator("main img, main b, main script").count() == 0


def test_markup_in_what_the_service_says_stays_text(page, console, alerts) -> None:
    """Labels, reasons and outputs come from checkpoints and their authors."""

    def spoil(route: Route) -> None:
        answer = route.fetch()
        (result, *others) = answer.json()["data"]
        label = {"label": MARKUP, "score": 1, "scores": {MARKUP: 1}}
        spoilt = [{**result, "answer": {**result["answer"], **label}}]
        if others:
            spoilt.append({"variant": others[0]["variant"], "error": MARKUP})
        route.fulfill(response=answer, json={**answer.json(), "data": spoilt})

    page.route("**/v1/compare", spoil)
    console.open("try?model=sentiment&text=good")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("main")).to_contain_text(MARKUP)
    expect(page.locator("main .bad-word")).to_have_text(MARKUP)
    assert page.locator("main img, main b, main script").count() == 0
    page.get_by_role("button", name="Copy Answers to good as Markdown").click()
    assert "<img" not in page.evaluate("navigator.clipboard.readText()").replace("\\<", "")


def test_a_report_brings_text_tables_and_pictures_and_nothing_else(
    browser: Browser, service: RunningService
) -> None:
    with Console(browser, service.url, KEY) as console:
        page = console.page
        said: list[str] = []

        def dismiss(dialog: Dialog) -> None:
            said.append(dialog.message)
            dialog.dismiss()

        page.on("dialog", dismiss)
        page.route(
            "**/v1/reports/page?**",
            lambda route: route.fulfill(content_type="text/html", body=EVIL),
        )
        console.open("reports?open=peak")
        report = page.get_by_label("Report")
        expect(report.get_by_role("heading", name="Evil")).to_be_visible()
        expect(report).to_contain_text("A paragraph")
        expect(report.get_by_role("table")).to_contain_text("a cell")
        unwanted = "script, style, iframe, form, input, [onclick], [href], [src]"
        assert report.locator(unwanted).count() == 0
        assert said == []
        # What the browser notes of it is that the policy let nothing run.
        noted = [text for text in console.problems if "Content Security Policy" in text]
        assert console.problems == noted


def test_a_long_text_is_tried_and_only_left_out_of_the_link(
    browser: Browser, service: RunningService
) -> None:
    text = "a word and another " * 6_000
    with Console(browser, service.url, KEY) as console:
        page = console.open("try?model=sentiment")
        page.locator("#inputs").fill(text)
        expect(page.locator("main")).to_contain_text("Too long for the address")
        expect(page.locator("#inputs")).to_have_value(text)
        assert len(page.url) < 1_000
        page.get_by_role("button", name="Run").click()
        # More than the model reads: the service says so, and so does the page.
        expect(page.locator("section.model .notice")).to_contain_text("tokens")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        # Typing goes on where the text is whole.
        page.locator("#inputs").press("End")
        page.locator("#inputs").press_sequentially("!")
        assert len(page.locator("#inputs").input_value()) == len(text) + 1
        refusals = [text for text in console.problems if "status of 400" in text]
        assert console.problems == refusals


def test_a_text_can_be_cleared(page, console) -> None:
    console.open("try?model=sentiment")
    page.locator("#inputs").fill("")
    expect(page.locator("#inputs")).to_have_value("")
    expect(page.get_by_role("button", name="Run")).to_be_disabled()
    console.open("try?model=smollm2")
    page.locator("#prompt").fill("")
    expect(page.locator("#prompt")).to_have_value("")
    expect(page.get_by_role("button", name="Run")).to_be_disabled()


def test_more_lines_than_are_asked_are_told(page, console) -> None:
    console.open("try?model=sentiment")
    page.locator("#inputs").fill("\n".join(f"text {number}" for number in range(40)))
    expect(page.locator(".actions")).to_contain_text("40 lines; the first 16 are asked")


def test_fast_typing_breaks_nothing(page, console) -> None:
    """Browsers refuse addresses that are rewritten at each of many keys."""
    console.open("try?model=sentiment")
    writes = page.evaluate(
        "() => { const own = history.replaceState; window.writes = 0;"
        " history.replaceState = function (...all) { window.writes += 1; own.apply(this, all); } }"
    )
    assert writes is None
    page.locator("#inputs").fill("")
    typed = "quick brown foxes " * 10
    page.locator("#inputs").press_sequentially(typed)
    expect(page.locator("#inputs")).to_have_value(typed)
    expect(page).to_have_url(re.compile(r"text=(quick\+brown\+foxes\+){10}"))
    assert page.evaluate("writes") < len(typed) / 2


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("compare?model=minilm&agreement=abc", "min_quality"),
        ("compare?model=minilm&agreement=2", "min_quality"),
        ("compare?model=minilm&p95=-5", "max_latency_ms"),
        ("compare?model=minilm&weights=1e400", "max_weights_bytes"),
        ("compare?model=nothing", "There is no model nothing here"),
        ("try?model=%3Cb%3E", "There is no model <b> here"),
        ("quality?model=nothing&span=forever", "There is no model nothing here"),
        ("reports?open=..%2F..%2Fetc", "no load test"),
        ("nowhere", "There is no such page"),
        ("constructor", "There is no such page"),
        ("quality?model=sentiment&span=toString", "of the last"),
    ],
)
def test_a_link_that_is_wrong_says_so(
    browser: Browser, service: RunningService, link: str, said: str
) -> None:
    with Console(browser, service.url, KEY) as console:
        page = console.open(link)
        expect(page.locator("main")).to_contain_text(said)
        # The browser itself notes each refusal; a broken page would note more.
        refusals = [text for text in console.problems if "status of 4" in text]
        assert console.problems == refusals


def test_a_service_that_is_away_is_told_and_found_again(
    browser: Browser, service: RunningService
) -> None:
    with Console(browser, service.url, KEY) as console:
        console.page.clock.install()
        page = console.open("fleet")
        page.locator("table.data").first.wait_for()
        page.context.set_offline(True)
        page.clock.run_for(50_000)  # what is open says nothing any more
        expect(page.locator(".lost")).to_contain_text("What is shown is as of", timeout=90_000)
        expect(page.locator(".tools .state")).to_have_text("no connection")
        page.context.set_offline(False)
        expect(page.locator(".tools .state")).to_have_text("live")
        expect(page.locator(".lost")).to_have_count(0)


def test_a_run_that_is_left_or_stopped_asks_no_more(page, console) -> None:
    asked: list[str] = []

    def hold(route: Route) -> None:
        asked.append(route.request.url)  # and never answered

    page.route("**/v1/compare", hold)
    console.open("try?model=sentiment")
    with page.expect_request("**/v1/compare"):
        page.get_by_role("button", name="Run").click()
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/v1/compare")):
        page.get_by_role("button", name="Stop").click()
    expect(page.locator("main")).to_contain_text("stopped")
    expect(page.get_by_role("button", name="Run")).to_be_enabled()
    assert len(asked) == 1


def test_two_tabs_live_beside_one_another(browser: Browser, service: RunningService) -> None:
    with (
        Console(browser, service.url, KEY) as one,
        Console(browser, service.url, key=None) as other,
    ):
        one.open("fleet").locator("table.data").first.wait_for()
        other.page.goto(service.url)
        expect(other.page.get_by_role("alert")).to_contain_text("asks for its API key")
        other.page.get_by_role("textbox", name="API key").fill("wrong")
        other.page.keyboard.press("Enter")
        expect(other.page.get_by_role("alert")).to_contain_text("refused this key")
        expect(one.page.locator(".tools .state")).to_have_text("live")
        assert one.problems == []


@pytest.mark.parametrize("link", ["fleet", "compare?model=minilm", "quality?model=sentiment"])
def test_a_hidden_tab_asks_for_nothing_however_long(
    browser: Browser, service: RunningService, link: str
) -> None:
    hide = (
        "h => { Object.defineProperty(document, 'hidden', {value: h, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }"
    )
    with Console(browser, service.url, KEY) as console:
        page = console.page
        page.clock.install()
        console.open(link)
        page.locator("main table.data:visible").first.wait_for()
        page.evaluate(hide, True)
        expect(page.locator(".tools .state")).to_have_text("paused")
        asked: list[Request] = []
        page.on("request", lambda request: asked.append(request))
        for _ in range(60):
            page.clock.run_for(60_000)
        assert [request.url for request in asked] == []
        with page.expect_request("**/v1/live"):
            page.evaluate(hide, False)
        expect(page.locator(".tools .state")).to_have_text("live")


NUM_VARIANTS = 30


def test_thirty_variants_have_each_its_row_and_its_point(
    browser: Browser, service: RunningService, client: httpx.Client
) -> None:
    """What the service says of one variant, said of thirty."""
    with Console(browser, service.url, KEY) as console:
        page = console.page
        page.route("**/v1/models", lambda route: _fulfil(route, _many_models))
        page.route("**/v1/auto?**", lambda route: _fulfil(route, _many_considered))
        events = _many_events(client)
        page.route(
            "**/v1/live",
            lambda route: route.fulfill(content_type="text/event-stream", body=events),
        )
        console.open("fleet")
        expect(page.locator("table.data tbody > tr")).to_have_count(NUM_VARIANTS)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        console.open("try?model=minilm")
        expect(page.locator(".choice input")).to_have_count(NUM_VARIANTS)
        console.open("compare?model=minilm")
        expect(page.locator(".pareto .point")).to_have_count(NUM_VARIANTS)
        boxes = [name.bounding_box() for name in page.locator(".pareto .point text").all()]
        places = sorted((box["y"], box["x"]) for box in boxes if box)
        for (y, x), (next_y, next_x) in pairwise(places):
            assert next_y - y > 5 or abs(next_x - x) > 40, "two names stand on one another"
        assert console.problems == []


def _fulfil(route: Route, change: Callable[[list[Any]], list[Any]]) -> None:
    answer = route.fetch()
    document = answer.json()
    route.fulfill(response=answer, json={**document, "data": change(document["data"])})


def _many(entry: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number in range(NUM_VARIANTS):
        yield number, {**copy.deepcopy(entry), "variant": f"variant-{number}"}


def _many_models(entries: list[Any]) -> list[Any]:
    (one,) = [entry for entry in entries if entry["id"] == "minilm:bf16"]
    return [
        {**one, "id": f"minilm:variant-{number}", "quantserve": info}
        for number, info in _many(one["quantserve"])
    ]


def _many_considered(entries: list[Any]) -> list[Any]:
    (one,) = [entry for entry in entries if entry["variant"] == "bf16"]
    return [
        {**entry, "p95_latency_ms": one["p95_latency_ms"] * (1 + number / NUM_VARIANTS)}
        for number, entry in _many(one)
    ]


def _many_events(client: httpx.Client) -> str:
    """The first states and figures of quality that the feed tells."""
    said = {}
    name = ""
    with client.stream("GET", "/v1/live", headers={"Authorization": f"Bearer {KEY}"}) as lines:
        for line in lines.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                said[name] = json.loads(line.removeprefix("data: "))
            if {"states", "quality"} <= set(said):
                break
    (state,) = [
        entry
        for entry in said["states"]["data"]
        if (entry["model"], entry["variant"]) == ("minilm", "bf16")
    ]
    (model,) = [entry for entry in said["quality"]["data"] if entry["model"] == "minilm"]
    (judged,) = [variant for variant in model["variants"] if variant["variant"] == "bf16"]
    variants = []
    for number, variant in _many(judged):
        agreement = variant["origins"][0]["measures"]["agreement"]
        for key in ("value", "low", "high"):
            agreement[key] -= 0.004 * (number % 7)
        variants.append(variant)
    events = {"states": [entry for _, entry in _many(state)]}
    events["quality"] = [{**model, "variants": variants}]
    return "".join(
        f"event: {topic}\ndata: {json.dumps({'at': said[topic]['at'], 'data': data})}\n\n"
        for topic, data in events.items()
    )
