"""A replica waits for its reference's times, and warns once if its own are longer."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from serving.app.plan import make_plan
from serving.artifacts import Artifact, ArtifactRequest, ArtifactStore, ensure
from serving.artifacts.pass_times import write_pass_times
from serving.replica import slowness_watch
from serving.replica.slowness_watch import SlownessWatch
from serving.settings import load_config
from tests.unit.conftest import WriteConfig

FOLDED, TWICE = "name: folded, runtime: paper", "name: twice, recipe: folded, runtime: paper"
VARIANTS = f"[{{{FOLDED}}}, {{{TWICE}, options: {{folds: 2}}}}]"

pytestmark = pytest.mark.usefixtures("paper")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.fixture
def requests(write_config: WriteConfig) -> tuple[ArtifactRequest, ArtifactRequest]:
    """Of a variant, and of what the plan compares it with: the first is the reference."""
    folded, twice = make_plan(load_config(write_config(VARIANTS, "letters"))).variants
    assert folded.compared_with is None
    assert twice.compared_with == folded.artifact
    return twice.artifact, folded.artifact


async def test_the_warning_comes_with_the_reference_s_times(
    store: ArtifactStore,
    requests: tuple[ArtifactRequest, ArtifactRequest],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(slowness_watch, "LOOK_S", 0.01)
    own: Artifact = ensure(requests[0], store)
    write_pass_times(own, {1: 0.05})
    watch = SlownessWatch("tiny:twice", own, requests[1], store)
    comparing = asyncio.create_task(watch.compare())
    await asyncio.sleep(0.05)
    # The reference has no artifact yet, and then no times.
    assert watch.remark is None
    exact = ensure(requests[1], store)
    await asyncio.sleep(0.05)
    assert not comparing.done()
    write_pass_times(exact, {1: 0.02})
    with caplog.at_level(logging.WARNING):
        await comparing
    said = "slower than folded on this CPU: a pass takes 50.0 ms, one of folded 20.0 ms"
    assert watch.remark == said
    assert [record.message for record in caplog.records] == [f"tiny:twice is {said}"]


async def test_a_reference_that_cannot_be_read_leaves_nothing_to_say(
    store: ArtifactStore, requests: tuple[ArtifactRequest, ArtifactRequest]
) -> None:
    own, exact = (ensure(request, store) for request in requests)
    write_pass_times(own, {1: 0.05})
    write_pass_times(exact, {1: 0.02})
    (exact.folder / "manifest.json").write_text("{")
    watch = SlownessWatch("tiny:twice", own, requests[1], store)
    await watch.compare()
    assert watch.remark is None


@pytest.mark.parametrize(
    "variants",
    [
        f"[{{{FOLDED}, threads: 1}}, {{{TWICE}}}]",
        f"[{{{FOLDED}}}, {{{TWICE}, threads: 1}}]",
    ],
)
def test_what_is_not_timed_is_compared_with_nothing(
    write_config: WriteConfig, variants: str
) -> None:
    planned = make_plan(load_config(write_config(variants, "letters"))).variants
    assert [one.compared_with for one in planned] == [None, None]
