"""Every page in a real browser over the real demo: what it shows, how it looks, who can use it."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any, Literal

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.console.opened import PHONE, Console
from tests.integration.demo_service import KEY
from tests.integration.running_service import RunningService
from tests.matrix import pairs

PAGES = {
    "fleet": "fleet",
    "try": "try?model=smollm2",
    "try an encoder": "try?model=sentiment",
    "compare": "compare?model=minilm&p95=200",
    "compare by goodput": "compare?model=minilm&x=goodput",
    "quality": "quality?model=sentiment&course=open",
    "load tests": "reports?open=peak",
}
TITLES = {"fleet": "Fleet", "load tests": "Load tests"}

every_page = pytest.mark.parametrize("name", PAGES)
TASKS = {"minilm": "embeddings", "sentiment": "classification", "smollm2": "generation"}


def settle(page: Page, name: str) -> None:
    """Wait for what comes last of a page."""
    last = {
        "fleet": "section.model:nth-of-type(4) table",
        "try": ".streams article >> nth=4",
        "try an encoder": ".calls",
        "compare": ".pareto .point >> nth=5",
        "compare by goodput": "#choice",
        "quality": ".course canvas >> nth=2",
        "load tests": ".document img >> nth=0",
    }
    page.locator(last[name]).wait_for()


@every_page
def test_it_renders(console: Console, name: str) -> None:
    page = console.open(PAGES[name])
    settle(page, name)
    expect(page.locator("main")).not_to_be_empty()
    expect(page).to_have_title(re.compile("quantserve$"))


@pytest.mark.parametrize(("name", "colours"), pairs(PAGES, ["light", "dark"]))
def test_axe_finds_nothing_serious(
    browser: Browser,
    service: RunningService,
    axe: str,
    name: str,
    colours: Literal["light", "dark"],
) -> None:
    with Console(browser, service.url, KEY, colours=colours) as console:
        page = console.open(PAGES[name])
        settle(page, name)
        # The policy lets no script in; what the debugger evaluates is none of the page's.
        page.evaluate(axe)
        found: dict[str, Any] = page.evaluate(
            "() => axe.run(document, {resultTypes: ['violations']})"
        )
        serious = {
            violation["id"]: [node["html"][:200] for node in violation["nodes"]]
            for violation in found["violations"]
            if violation["impact"] in ("serious", "critical")
        }
        assert serious == {}
        assert len(found["passes"]) > 10  # it did look


@every_page
def test_a_narrow_screen_needs_no_sideways_scrolling(
    browser: Browser, service: RunningService, name: str
) -> None:
    with Console(browser, service.url, KEY, size=PHONE) as console:
        page = console.open(PAGES[name])
        settle(page, name)
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0
        page.get_by_role("link", name="Compare", exact=True).first.click()
        expect(page.locator(".pareto")).to_be_visible()
        assert console.problems == []


def test_the_key_is_asked_for_once_and_a_wrong_one_is_told(
    browser: Browser, service: RunningService
) -> None:
    with Console(browser, service.url, key=None) as console:
        page = console.page
        page.goto(service.url)
        expect(page.get_by_role("alert")).to_contain_text("asks for its API key")
        page.get_by_role("textbox", name="API key").fill("wrong")
        page.get_by_role("button", name="Use it").click()
        expect(page.get_by_role("alert")).to_contain_text("refused this key")
        page.get_by_role("textbox", name="API key").fill(KEY)
        page.keyboard.press("Enter")
        expect(page.locator("table.data").first).to_be_visible(timeout=30_000)
        page.reload()
        expect(page.locator("table.data").first).to_be_visible(timeout=30_000)
        assert page.locator("form.key").count() == 0
        assert page.evaluate("Object.values(localStorage)") == []
        assert page.evaluate("sessionStorage.getItem('quantserve.key')") == KEY
        page.get_by_role("button", name="Forget key").click()
        expect(page.get_by_role("alert")).to_contain_text("asks for its API key")


def test_the_fleet_has_every_variant_as_the_service_tells(page, console, client) -> None:
    console.open("fleet")
    settle(page, "fleet")
    entries = client.get("/v1/models").json()["data"]
    for model in {entry["quantserve"]["model"] for entry in entries}:
        table = page.get_by_role("table", name=f"Variants of {model}")
        named = [
            entry["quantserve"]["variant"]
            for entry in entries
            if entry["quantserve"]["model"] == model
        ]
        expect(table.locator("tbody > tr .name")).to_have_text(named)
        expect(table.locator(".state", has_text="ready")).to_have_count(len(named))
        expect(table.locator(".tag", has_text="default")).to_have_count(1)
        expect(table.locator(".tag", has_text="reference")).to_have_count(1)


def test_what_is_asked_meanwhile_shows_in_the_fleet(page, console, client) -> None:
    console.open("fleet")
    row = page.get_by_role("row", name=re.compile("^bf16")).nth(1)  # sentiment's
    expect(row.locator(".col-rate")).to_contain_text("0", timeout=30_000)
    for _ in range(40):
        body = {"model": "sentiment:bf16", "input": "good"}
        assert client.post("/v1/classify", json=body).status_code == 200
    expect(row.locator(".col-p95")).to_contain_text(re.compile(r"\d"), timeout=30_000)


def test_a_variant_unfolds(page, console) -> None:
    console.open("fleet")
    page.get_by_role("button", name="Details of minilm:int4").click()
    expect(page.locator(".fleet-detail .facts")).to_contain_text("4-bit weights")
    expect(page.locator(".fleet-detail canvas")).to_have_count(3)


def test_tables_are_sorted_and_copied(page, console, client) -> None:
    console.open("fleet")
    table = page.get_by_role("table", name="Variants of minilm")
    table.get_by_role("button", name=re.compile("^Memory")).click()
    expect(page).to_have_url(re.compile("sort=memory"))
    expect(table.get_by_role("columnheader", name=re.compile("^Memory"))).to_have_attribute(
        "aria-sort", "ascending"
    )
    page.get_by_role("button", name="Copy Variants of minilm as CSV").click()
    text = page.evaluate("navigator.clipboard.readText()")
    head, *rows = list(csv.reader(io.StringIO(text)))
    sizes = [float(row[head.index("Memory, MiB")]) for row in rows]
    assert sizes == sorted(sizes)
    assert {row[0] for row in rows} == {
        entry["quantserve"]["variant"]
        for entry in client.get("/v1/models").json()["data"]
        if entry["quantserve"]["model"] == "minilm"
    }
    page.get_by_role("button", name="Copy Variants of minilm as Markdown").click()
    lines = page.evaluate("navigator.clipboard.readText()").strip().split("\n")
    assert len(lines) == 2 + len(rows)
    assert {line.count("|") for line in lines} == {len(head) + 1}


def test_the_keyboard_reaches_everything_of_the_frame(page, console) -> None:
    console.open("fleet")
    reached = []
    for _ in range(9):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim()"))
    assert reached[:7] == [
        "Skip to the page",
        "quantserve",
        "Fleet",
        "Try",
        "Compare",
        "Quality",
        "Load tests",
    ]
    page.get_by_role("link", name="Quality", exact=True).first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_colours_are_chosen_and_remembered(page, console) -> None:
    console.open("fleet")
    back = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(back)
    page.get_by_label("Colours").select_option("dark")
    dark = page.evaluate(back)
    assert dark != light
    page.reload()
    assert page.evaluate(back) == dark


def test_a_text_with_a_question_mark_is_all_of_it_in_the_address(page, console) -> None:
    console.open("try?model=sentiment&text=Good? Or bad?")
    expect(page.locator("#inputs")).to_have_value("Good? Or bad?")
    page.locator("#inputs").fill("a&b=c #1 %41?")
    expect(page).to_have_url(re.compile("text=a%26b"))
    page.reload()
    expect(page.locator("#inputs")).to_have_value("a&b=c #1 %41?")


def test_a_hidden_tab_listens_no_more(page, console) -> None:
    console.open("fleet")
    hide = (
        "h => { Object.defineProperty(document, 'hidden', {value: h, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }"
    )
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/v1/live")):
        page.evaluate(hide, True)
    expect(page.locator(".tools .state")).to_have_text("paused")
    with page.expect_request("**/v1/live"):
        page.evaluate(hide, False)
    expect(page.locator(".tools .state")).to_have_text("live")


def test_quality_is_evaluated_on_demand(page, console) -> None:
    console.open("quality?model=sentiment")
    expect(page.locator(".conclusions article")).to_have_count(3)
    with page.expect_response("**/v1/quality/evaluate") as asked:
        page.locator("#evaluate").click()
    assert asked.value.status == 202
    expect(page.locator(".evaluation")).to_contain_text("Evaluated.", timeout=90_000)
    table = page.get_by_role("table", name="Measures of sentiment")
    expect(table).to_contain_text("accuracy minus the reference's")
    expect(
        page.get_by_role("table", name="Verdicts of sentiment").locator("tbody > tr").first
    ).to_be_visible()


def test_reports_are_opened_and_two_are_compared(page, console) -> None:
    console.open("reports")
    page.get_by_role("button", name="compare", exact=True).click()
    report = page.get_by_label("Report")
    expect(report.get_by_role("heading", name="Recommendation").first).to_be_visible()
    assert page.evaluate("document.querySelector('.document img').naturalWidth") > 100
    assert report.locator("style, script").count() == 0
    page.get_by_label("Compare compare").check()
    page.get_by_label("Compare peak").check()
    page.get_by_role("button", name="What changed between the two").click()
    expect(report.get_by_role("heading", name="Comparison of two load tests")).to_be_visible(
        timeout=90_000
    )


def test_a_call_is_copied_as_curl_that_works(page, console, service) -> None:
    console.open("try?model=sentiment&text=good")
    page.get_by_role("button", name="Copy the call of int4 as curl").click()
    text = page.evaluate("navigator.clipboard.readText()")
    assert KEY not in text
    (body,) = map(json.loads, re.findall(r"-d '(.*)'", text, re.S))
    (path,) = re.findall(r"curl '([^']+)'", text)
    answer = httpx.post(path, json=body, headers={"Authorization": f"Bearer {KEY}"})
    assert answer.status_code == 200
    assert answer.json()["model"] == "sentiment:int4"
