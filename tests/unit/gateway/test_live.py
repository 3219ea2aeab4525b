"""The feed: it looks while somebody listens, tells what changed, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

import pytest

from serving.errors import NotReady, QueueFull
from serving.gateway import live as module
from serving.gateway.cluster import Cluster, VariantPages
from serving.gateway.live import Live
from serving.gateway.variant_status import ApplicationState, application_name
from serving.metrics import EdgeMetrics, Labels, exposition
from serving.seams import VariantStatus
from serving.seams.live import LiveEvent
from tests.unit.fakes.backends import SilentBoard, describe
from tests.unit.fakes.encoder import FakeTask
from tests.unit.fakes.waiting import MAX_WAIT_S, let_others_act

NAMES = [("minilm", "fp32"), ("minilm", "int4")]
UP = ApplicationState(1, False, "")
DOWN = ApplicationState(0, False, "starting again after: RayActorError: it died")


class FakeCluster:
    """Two variants; a test lets one go down."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        """What Ray Serve knows to be down."""
        self.silent: set[str] = set()
        """Who does not answer when it is asked what it has counted."""
        self.dead: set[str] = set()
        """Whose process has ended, whatever Ray Serve knows."""
        self.looks = 0
        self.described: list[str] = []
        self.edges = {name: EdgeMetrics(":".join(name)) for name in NAMES}
        for name, edge in self.edges.items():
            edge.start(Labels(*name, "embeddings"))

    async def states(self) -> dict[tuple[str, str], ApplicationState]:
        self.looks += 1
        return {name: DOWN if name[1] in self.down else UP for name in NAMES}

    async def status(self, model: str, variant: str) -> VariantStatus:
        self.described.append(variant)
        if variant in self.down:
            return VariantStatus(model, variant, False, False, DOWN.reason, 0, None)
        return VariantStatus(model, variant, True, False, "", 1, describe(FakeTask()))

    def living(self) -> frozenset[tuple[str, str]]:
        return frozenset(
            (application_name(*name), ":".join(name))
            for name in NAMES
            if name[1] not in self.down | self.dead
        )

    async def running_gateways(self) -> int:
        return 0

    async def metrics_pages(self, method: str) -> list[VariantPages]:
        return [
            VariantPages(*name, 1, () if name[1] in self.silent else (exposition([edge.registry]),))
            for name, edge in self.edges.items()
        ]


class FakeBoard(SilentBoard):
    """Does not answer until a test says so."""

    def __init__(self) -> None:
        self.answers = False

    async def report(self) -> tuple[Any, ...]:
        if not self.answers:
            raise NotReady("it starts")
        return ()


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_S", 0.005)
    monkeypatch.setattr(module, "FIGURES_EVERY", 2)


async def no_gateways() -> list[str]:
    """None has counted anything."""
    return []


@pytest.fixture
def feed(cluster: FakeCluster) -> Live:
    return Live(cast(Cluster, cluster), FakeBoard(), no_gateways, cluster.living)


async def next_of(
    topic: str, events: AsyncGenerator[LiveEvent | None, None]
) -> list[dict[str, Any]]:
    async with asyncio.timeout(5):
        async for event in events:
            if event is not None and event.topic == topic:
                return [dict(entry) for entry in event.entries]
    raise AssertionError("the feed ended")


async def test_all_first_then_what_changed(feed: Live, cluster: FakeCluster) -> None:
    async with aclosing(feed.listen()) as events:
        first = await next_of("states", events)
        assert [(entry["variant"], entry["state"]) for entry in first] == [
            ("fp32", "ready"),
            ("int4", "ready"),
        ]
        cluster.down.add("int4")
        (down,) = await next_of("states", events)
        assert (down["variant"], down["state"], down["reason"]) == ("int4", "loading", DOWN.reason)
        cluster.down.clear()
        (up,) = await next_of("states", events)
        assert (up["variant"], up["state"]) == ("int4", "ready")


async def test_a_death_is_told_before_ray_serve_knows_of_it(
    feed: Live, cluster: FakeCluster
) -> None:
    async with aclosing(feed.listen()) as events:
        await next_of("states", events)
        cluster.dead.add("int4")
        (gone,) = await next_of("states", events)
        assert (gone["variant"], gone["state"], gone["replicas"]) == ("int4", "loading", 0)
        assert gone["reason"] == module.GONE
        cluster.down.add("int4")
        (known,) = await next_of("states", events)
        assert known["reason"] == DOWN.reason


async def test_a_variant_that_stays_as_it_is_is_not_asked_again(
    feed: Live, cluster: FakeCluster
) -> None:
    async with aclosing(feed.listen()) as events:
        await next_of("states", events)
        seen = cluster.looks
        for _ in range(1_000):
            if cluster.looks > seen:  # now and then, though nothing seems to have happened
                break
            await asyncio.sleep(0.005)
    assert cluster.looks > seen
    assert sorted(cluster.described) == ["fp32", "int4"]


async def test_who_comes_later_is_told_all(feed: Live) -> None:
    async with aclosing(feed.listen()) as one:
        await next_of("states", one)
        async with aclosing(feed.listen()) as other:
            assert len(await next_of("states", other)) == 2


async def test_nobody_looks_while_nobody_listens(feed: Live, cluster: FakeCluster) -> None:
    assert cluster.looks == 0
    async with aclosing(feed.listen()) as events:
        await next_of("states", events)
        assert feed.listeners == 1
    assert feed.listeners == 0
    assert feed._looking is not None
    await asyncio.wait_for(feed._looking, MAX_WAIT_S)
    seen = cluster.looks
    await let_others_act()
    assert cluster.looks == seen


async def test_figures_are_of_what_was_answered_meanwhile(feed: Live, cluster: FakeCluster) -> None:
    async with aclosing(feed.listen()) as events:
        await next_of("states", events)
        await next_of("figures", events)
        for _ in range(10):
            cluster.edges["minilm", "int4"].observe(
                Labels("minilm", "int4", "embeddings"), 200, 0.02
            )
        (changed,) = await next_of("figures", events)
        assert changed["variant"] == "int4"
        assert changed["requests_per_s"] > 0
        assert 10 < changed["p95_ms"] < 40
        assert changed["within"][0][1] == 0
        assert changed["within"][-1][1] == 1
        assert changed["within"][0][0] < 20 <= changed["within"][-1][0]


async def test_one_that_did_not_answer_a_look_has_not_done_all_since_then(
    feed: Live, cluster: FakeCluster
) -> None:
    labels = Labels("minilm", "int4", "embeddings")
    for _ in range(1_000):
        cluster.edges["minilm", "int4"].observe(labels, 200, 20.0)
    cluster.silent.add("int4")
    async with aclosing(feed.listen()) as events:
        assert await next_of("figures", events)
        cluster.silent.clear()
        cluster.edges["minilm", "fp32"].observe(labels, 200, 0.02)
        await next_of("figures", events)
        cluster.edges["minilm", "int4"].observe(labels, 200, 0.02)
        (changed,) = await next_of("figures", events)
        assert changed["variant"] == "int4"
        assert changed["p95_ms"] < 40


async def test_what_is_not_known_hides_nothing_else(feed: Live) -> None:
    async with aclosing(feed.listen()) as events:
        assert await next_of("states", events)
        assert await next_of("figures", events)


async def test_listeners_are_bounded(feed: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LISTENERS", 1)
    async with aclosing(feed.listen()) as one:
        await next_of("states", one)
        with pytest.raises(QueueFull):
            await anext(feed.listen())
    async with aclosing(feed.listen()) as again:
        await next_of("states", again)


async def test_who_does_not_read_is_let_go(feed: Live, cluster: FakeCluster, monkeypatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 1)
    async with aclosing(feed.listen()) as events:
        await anext(events)
        while feed.listeners:
            cluster.down ^= {"int4"}
            await asyncio.sleep(0.005)
        assert len([event async for event in events]) <= 1


async def test_a_stream_ends_by_itself(feed: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIFETIME_S", 0.05)
    async with asyncio.timeout(5):
        events = [event async for event in feed.listen()]
    assert events
    assert feed.listeners == 0


async def test_who_hears_nothing_is_told_that_nothing_changed(
    feed: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUIET_S", 0.02)
    async with asyncio.timeout(5), aclosing(feed.listen()) as events:
        async for event in events:
            if event is None:
                return
    raise AssertionError("nothing was said")
