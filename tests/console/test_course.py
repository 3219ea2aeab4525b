"""Quality over time: what is drawn is what the store has, and changes with the service."""

from __future__ import annotations

import re
import time
from typing import Any

import httpx
from playwright.sync_api import Page, Response, expect

COLOURS = """element => {
    const probe = document.createElement("span");
    document.body.append(probe);
    const found = ["accent", "fair"].map(name => {
        probe.style.color = `var(--${name})`;
        return getComputedStyle(probe).color.match(/\\d+/g).map(Number);
    });
    probe.remove();
    const data = element.getContext("2d").getImageData(0, 0, element.width, element.height).data;
    const counts = found.map(([r, g, b]) => {
        let count = 0;
        for (let i = 0; i < data.length; i += 4)
            if ([r, g, b, 255].every((value, place) => data[i + place] === value)) count += 1;
        return count;
    });
    return {live: counts[0], probes: counts[1]};
}"""
"""Pixels of a canvas in the colour of each origin."""


def steps_of(client: httpx.Client, model: str) -> list[dict[str, Any]]:
    query: dict[str, str | float] = {"model": model, "since": time.time() - 86_400}
    found: list[dict[str, Any]] = client.get("/v1/quality/course", params=query).json()["data"]
    return found


def drawn(page: Page, variant: str) -> dict[str, int]:
    canvas = page.get_by_role("img", name=f"Agreement of {variant}:").locator("canvas")
    found: dict[str, int] = canvas.evaluate(COLOURS)
    return found


def test_the_course_is_drawn_and_told_as_the_store_has_it(page, console, client) -> None:
    console.open("quality?model=sentiment&course=open")
    expect(page.locator(".course canvas")).to_have_count(3)
    table = page.get_by_role("table", name="Agreement of sentiment over time")
    steps = steps_of(client, "sentiment")
    assert {step["variant"] for step in steps} == {"bf16", "int8-dynamic", "int4"}
    for variant in ("bf16", "int8-dynamic", "int4"):
        (probed,) = [
            step for step in steps if step["variant"] == variant and step["origin"] == "probes"
        ]
        agreement = probed["agreement"]
        row = table.get_by_role("row", name=re.compile(f"^{variant}")).filter(has_text="probes")
        expect(row).to_contain_text(f"{agreement['value']:.4f}")
        expect(row).to_contain_text(f"{agreement['low']:.4f}")
        expect(row).to_contain_text(str(agreement["count"]))
        assert drawn(page, variant)["probes"] > 5


def test_live_requests_join_the_course_and_the_worst_are_kept(page, console, client) -> None:
    texts = [f"A film of {number} turns that never finds one." for number in range(12)]
    console.open("quality?model=sentiment&span=15m")
    for text in texts:
        client.post("/v1/classify", json={"model": "sentiment:int4", "input": text})
    figure = page.locator(".course", has_text="int4")
    expect(figure.get_by_role("img")).to_have_attribute(
        "aria-label", re.compile("live requests"), timeout=120_000
    )
    assert drawn(page, "int4")["live"] > 5
    # Pointed at, the picture says what is there.
    box = figure.locator("canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 12, box["y"] + box["height"] / 2)
    expect(figure.locator("figcaption")).to_contain_text(re.compile(r"live requests: \d\.\d{4} \("))

    known = client.get("/v1/quality?model=sentiment").json()["data"][0]["variants"]
    worst = [sample for variant in known for sample in variant["worst"]]
    table = page.get_by_role("table", name="Worst samples of sentiment")
    if worst:
        expect(table.locator("tbody > tr")).to_have_count(len(worst))
        expect(table).to_contain_text(worst[0]["input"])
    else:
        expect(page.locator("main")).to_contain_text("No input is kept")


def test_a_picture_takes_the_colours_that_are_chosen(page, console) -> None:
    console.open("quality?model=sentiment")
    expect(page.locator(".course canvas")).to_have_count(3)
    assert drawn(page, "int4")["probes"] > 5
    page.get_by_label("Colours").select_option("dark")
    expect(page.locator(".course canvas")).to_have_count(3)
    assert drawn(page, "int4")["probes"] > 5


def is_of_the_last_hour(answer: Response) -> bool:
    url = httpx.URL(answer.url)
    is_course = url.path == "/v1/quality/course"
    return is_course and 3_500 < time.time() - float(url.params["since"]) < 3_700


def test_a_span_is_part_of_the_link(page, console) -> None:
    console.open("quality?model=sentiment&span=7d")
    expect(page.locator("#span")).to_have_value("7d")
    with page.expect_response(is_of_the_last_hour):  # the seven days' may still be under way
        page.locator("#span").select_option("1h")
    expect(page).to_have_url(re.compile("span=1h"))
