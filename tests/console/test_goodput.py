"""Goodput on the Compare page is what replicas have counted; what is not known is not drawn."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.sync_api import Page, expect

ASKED = ("minilm", "bf16")
FORGOTTEN_MS = 180_000
"""After two minutes nothing is known any more of requests that other tests sent."""

NUM_REQUESTS = 30


def count(client: httpx.Client, name: str) -> float:
    """The sum of a series of that variant, over its replicas and the gateway."""
    model, variant = ASKED
    start = re.compile(
        rf'^quantserve_{name}{{[^}}]*model="{model}"[^}}]*variant="{variant}"[^}}]*}} (\S+)$', re.M
    )
    return sum(map(float, start.findall(client.get("/metrics").text)))


def test_goodput_is_what_was_answered_in_time_for_each_busy_second(page, console, client) -> None:
    model, variant = ASKED
    console.open(f"compare?model={model}&x=goodput")
    missing = page.locator("#missing")
    expect(missing).to_contain_text(variant, timeout=FORGOTTEN_MS)
    expect(missing).to_contain_text("in the last two minutes they were asked nothing")
    row = page.locator(".compare-table").get_by_role("row", name=re.compile(f"^{variant}"))
    expect(row.locator(".col-goodput")).to_have_text("–")

    # The feed has looked at least once by now, so these are new to it.
    console.open("fleet")
    fleet = page.get_by_role("table", name=f"Variants of {model}")
    rate = fleet.get_by_role("row", name=re.compile(f"^{variant}")).locator(".col-rate")
    expect(rate).to_contain_text("0")
    before = count(client, "core_wait_seconds_count"), count(client, "busy_seconds_total")
    for _ in range(NUM_REQUESTS):
        body = {"model": f"{model}:{variant}", "input": "A lighthouse keeper counts the ships."}
        assert client.post("/v1/embeddings", json=body).status_code == 200
    assert count(client, "core_wait_seconds_count") - before[0] == NUM_REQUESTS
    expected = NUM_REQUESTS / (count(client, "busy_seconds_total") - before[1])

    console.open(f"compare?model={model}&x=goodput")
    expect(row.locator(".col-goodput")).not_to_have_text("–")
    assert shown(row) == pytest.approx(expected, rel=0.01)
    expect(page.locator(".pareto .point", has_text=variant)).to_have_count(1)

    # None is answered within a microsecond, all are within an hour.
    page.locator("#p95").fill("0.001")
    expect(row.locator(".col-goodput")).to_have_text("0")
    expect(missing).to_contain_text("answered nothing in time")
    page.locator("#p95").fill("3600000")
    expect(row.locator(".col-goodput")).not_to_have_text("0")
    assert shown(row) == pytest.approx(expected, rel=0.01)


def shown(row) -> float:
    return float(row.locator(".col-goodput").inner_text().replace(",", ""))


def test_the_axis_is_chosen_by_keyboard_and_part_of_the_link(page, console) -> None:
    console.open("compare?model=minilm")
    page.locator("#across").focus()
    page.keyboard.press("ArrowDown")
    expect(page).to_have_url(re.compile("x=goodput"))
    expect(page.locator(".pareto .axis").first).to_contain_text("goodput")
    # A limit of time is no line where there is no time across.
    expect(page.get_by_role("slider")).to_have_count(1)


def shares(page: Page, within: list[list[float]], ms: float) -> float:
    ask = "import('/console/parts/goodput.js').then(m => m.shareWithin(within, ms))"
    found: float = page.evaluate(f"([within, ms]) => {ask}", [within, ms])
    return found


def test_the_share_in_time_is_read_between_bounds(page, console) -> None:
    console.open("compare?model=minilm")
    within = [[10, 0.0], [20, 0.5], [40, 0.9]]
    at = {5: 0, 10: 0, 15: 0.25, 20: 0.5, 30: 0.7, 40: 0.9, 1_000: 0.9}
    for ms, share in at.items():
        assert shares(page, within, ms) == pytest.approx(share)
