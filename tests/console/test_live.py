"""What moves: streams and where they part, limits and what they leave, a replica that dies."""

from __future__ import annotations

import json
import re
import time
from itertools import zip_longest

from playwright.sync_api import Response, expect

TEXT = "Tell me a short story about a lighthouse."
SEEN_WITHIN_MS = 5_000
BACK_MS = 60_000


def tokens_of(stream: str) -> list[str]:
    """The tokens of a chat's server-sent events."""
    events = [line.removeprefix("data: ") for line in stream.splitlines() if line]
    assert events.pop() == "[DONE]"
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    return [token["token"] for choice in choices for token in choice["logprobs"]["content"]]


def model_of(response: Response) -> str:
    asked = response.request.post_data_json
    assert asked is not None
    return str(asked["model"])


def test_every_variant_streams_and_where_it_leaves_the_reference_is_marked(page, console) -> None:
    answers: list[Response] = []
    page.on(
        "response",
        lambda response: answers.append(response) if "/v1/chat" in response.url else None,
    )
    console.open(f"try?model=smollm2&tokens=24&text={TEXT}")
    page.get_by_role("button", name="Run").click()
    streams = page.locator(".stream")
    expect(streams).to_have_count(5)
    expect(page.locator(".answer[data-state=done]")).to_have_count(5, timeout=120_000)

    written = {
        model_of(response).removeprefix("smollm2:"): tokens_of(response.text())
        for response in answers
    }
    left = 0
    for variant, tokens in written.items():
        stream = page.get_by_label(f"Answer of {variant}")
        expect(stream.locator(".answer")).to_have_text("".join(tokens))
        expect(stream.locator(".counters")).to_contain_text(re.compile(r"\d ms"))
        pairs = zip_longest(tokens, written["fp32"])
        place = next((i for i, (own, other) in enumerate(pairs) if own != other), None)
        if variant == "fp32" or place is None:
            expect(stream.locator("mark")).to_have_count(0)
            continue
        left += 1
        marked = tokens[place] if place < len(tokens) else "⌁ ends here"
        assert stream.locator("mark").text_content() == marked
        table = stream.locator(".left")
        expect(table).to_contain_text(f"at token {place + 1};")
        own, theirs = table.locator("tbody tr").all()
        # Each said its own token because it was the most probable one there.
        share = [
            [
                float(re.sub("[^0-9.]", "", cell) or 0)
                for cell in row.locator("td").all_inner_texts()
            ]
            for row in (own, theirs)
        ]
        assert share[0][0] >= share[1][0]
        assert share[1][1] >= share[0][1]
    assert set(written) == {"fp32", "bf16", "int8-dynamic", "int4", "q4_1"}
    assert left  # of four variants, int4 among them, some one does
    expect(page.locator(".verdict-line .sentence")).to_contain_text("leaves it at token")


def test_a_limit_that_is_moved_changes_the_choice(page, console, client) -> None:
    console.open("compare?model=minilm")
    choice = page.locator("#choice strong").nth(1)
    expect(choice).to_be_visible()
    free = choice.text_content()
    assert free == client.get("/v1/auto?model=minilm").json()["choice"]
    assert free != "fp32"

    # Only the reference agrees wholly.
    page.locator("#agreement").fill("1")
    expect(choice).to_have_text("fp32")
    expect(page).to_have_url(re.compile("agreement=1"))
    row = page.get_by_role("row", name=re.compile("^int4"))
    expect(row).to_contain_text("the limit is 1")
    page.get_by_role("button", name="Clear limits").click()
    expect(choice).to_have_text(free)

    line = page.get_by_role("slider", name="agreement at least")
    line.focus()
    page.keyboard.press("Home")
    expect(choice).to_have_text("fp32")
    page.keyboard.press("End")
    expect(choice).to_have_text(free)

    handle = page.locator(".limit.horizontal .handle").bounding_box()
    top = page.locator(".pareto").bounding_box()
    assert handle is not None
    assert top is not None
    page.mouse.move(handle["x"] + 5, handle["y"] + 5)
    page.mouse.down()
    page.mouse.move(handle["x"] + 5, top["y"] + 60, steps=5)
    page.mouse.move(handle["x"] + 5, top["y"], steps=5)
    page.mouse.up()
    expect(choice).to_have_text("fp32")


def test_a_replica_that_dies_is_seen_to_be_down_and_to_come_back(page, console, service) -> None:
    """Within five seconds, and before it is back: a classifier may be so between two looks."""
    console.open("fleet")
    row = page.get_by_role("table", name="Variants of smollm2").get_by_role(
        "row", name=re.compile("^fp32")
    )
    expect(row.locator(".state")).to_have_text("ready")
    (victim,) = service.replica_processes("smollm2", "fp32")
    killed = time.monotonic()
    victim.kill()
    expect(row.locator(".state")).not_to_have_text("ready", timeout=SEEN_WITHIN_MS)
    print(f"down after {time.monotonic() - killed:.1f} s")  # noqa: T201
    expect(row.locator(".reason")).not_to_be_empty()
    expect(row.locator(".state")).to_have_text("ready", timeout=BACK_MS)
