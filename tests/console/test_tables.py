"""Every table is sorted by each of its columns and copied; every call is copied and runs."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.console.opened import Console
from tests.integration.demo_service import KEY

LEFT = "Tell me a short story about a lighthouse."
TABLES = {
    "fleet": ("fleet?open=minilm:int4,sentiment:bf16", "section.model >> nth=2"),
    "try": (f"try?model=smollm2&tokens=24&text={LEFT}", ".answer"),
    "try an encoder": ("try?model=sentiment&text=good", ".calls"),
    "compare": ("compare?model=minilm", ".pareto"),
    "quality": ("quality?model=sentiment&course=open", ".course canvas >> nth=2"),
    "load tests": ("reports?open=peak", ".document table.data"),
}
RUN = {"try": ".answer[data-state=done] >> nth=4", "try an encoder": "section.model table.data"}


def opened(console: Console, name: str) -> Page:
    """A page with all its tables."""
    link, last = TABLES[name]
    page = console.open(link)
    page.locator(last).first.wait_for()
    if name in RUN:
        page.get_by_role("button", name="Run").click()
        page.locator(RUN[name]).first.wait_for(timeout=120_000)
    return page


def copied(page: Page, button: Any) -> str:
    """What a button copies."""
    page.evaluate("navigator.clipboard.writeText('')")
    button.click()
    expect(button).to_have_text(re.compile("copied"))
    text: str = page.evaluate("navigator.clipboard.readText()")
    return text


def run(program: str, language: str) -> str:
    """What a program prints that has the key where a user would have it."""
    command = ["bash", "-c", program] if language == "curl" else [sys.executable, "-c", program]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "QUANTSERVE_SERVER__API_KEY": KEY},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_sorted_by_each_column_and_copied(console: Console, name: str) -> None:
    page = opened(console, name)
    tables = page.locator("main table:not(.u-legend)")  # a plot names its lines in one
    assert tables.count() == page.locator("main table.data").count() > 0
    for place in range(tables.count()):
        table = tables.nth(place)
        caption = table.locator("caption").text_content()
        num_rows = table.locator("> tbody > tr:not(.detail)").count()
        buttons = page.get_by_role("button", name=f"Copy {caption} as CSV", exact=True)
        # Plots in an unfolded row have tables of their own.
        heads = table.locator("> thead").get_by_role("columnheader")
        for column in range(heads.count()):
            head = heads.nth(column)
            for order in ("ascending", "descending", "none"):
                head.get_by_role("button").click()
                expect(head).to_have_attribute("aria-sort", order)
        assert buttons.count() == 1, caption
        head_line, *rows = csv.reader(io.StringIO(copied(page, buttons)))
        assert len(rows) == num_rows
        assert {len(row) for row in rows} <= {len(head_line)}
        markdown = page.get_by_role("button", name=f"Copy {caption} as Markdown", exact=True)
        lines = copied(page, markdown).rstrip("\n").split("\n")
        assert len(lines) == num_rows + 2
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(head_line) + 1}


def test_the_order_and_what_is_unfolded_are_part_of_the_link(page, console) -> None:
    console.open("fleet")
    page.get_by_role("button", name="Details of minilm:int4").click()
    page.get_by_role("table", name="Variants of minilm").get_by_role(
        "button", name=re.compile("^Variant")
    ).click()
    expect(page).to_have_url(re.compile("open=minilm%3Aint4.*sort=variant|sort=variant.*open="))
    page.reload()
    expect(page.locator(".fleet-detail")).to_have_count(1)
    expect(
        page.get_by_role("table", name="Variants of minilm").get_by_role(
            "columnheader", name=re.compile("^Variant")
        )
    ).to_have_attribute("aria-sort", "ascending")


def test_picked_load_tests_are_part_of_the_link(page, console) -> None:
    console.open("reports")
    page.get_by_label("Compare compare").check()
    page.get_by_label("Compare peak").check()
    expect(page).to_have_url(re.compile("pick=compare.*peak"))
    page.reload()
    expect(page.get_by_label("Compare peak")).to_be_checked()
    expect(page.get_by_role("button", name="What changed between the two")).to_be_enabled()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("try", "the call of int4"),
        ("try an encoder", "the call of int4"),
        ("try an encoder", "the comparison"),
        ("compare", "the question"),
    ],
)
@pytest.mark.parametrize("language", ["curl", "Python"])
def test_a_copied_call_runs(console: Console, name: str, what: str, language: str) -> None:
    page = opened(console, name)
    button = page.get_by_role("button", name=f"Copy {what} as {language}", exact=True).first
    text = copied(page, button)
    assert KEY not in text
    printed = run(text, language)
    if name == "try":
        assert printed.strip().endswith("data: [DONE]")
        assert '"model":"smollm2:int4"' in printed
    elif what == "the call of int4":
        assert "sentiment:int4" in printed
    else:
        assert "int8-dynamic" in printed


@pytest.mark.parametrize("language", ["curl", "Python"])
def test_a_copied_call_has_a_text_as_it_was(console: Console, language: str) -> None:
    text = 'it\'s "quoted" \\n $HOME `id` é 日本 😀 <b>'
    page = console.open("try?model=sentiment")
    page.locator("#inputs").fill(text)
    button = page.get_by_role("button", name=f"Copy the call of int4 as {language}", exact=True)
    call = copied(page, button)
    # Both are run with something in the place of what sends.
    program = (
        f'curl() {{ for a; do :; done; printf %s "$a"; }}; {call}'
        if language == "curl"
        else "import json, sys, types\n"
        "def post(url, headers, json, timeout):\n"
        "    import json as j; print(j.dumps(json)); raise SystemExit\n"
        "sys.modules['httpx'] = types.SimpleNamespace(post=post)\n" + call
    )
    assert json.loads(run(program, language))["input"] == text
