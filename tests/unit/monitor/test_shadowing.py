"""Sampled requests are compared one at a time, or dropped for a reason."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from serving.errors import NotReady, QueueFull
from serving.monitor.judge import NotComparable
from serving.monitor.shadowing import MAX_WAITING, Shadowing
from serving.seams import EncodedSample
from tests.unit.fakes.waiting import let_others_act
from tests.unit.monitor.fakes import Assessed, sample

FAST = {"shadow": {"rate": 1, "max_per_second": 1000}}


class Running:
    """A ``Shadowing`` that runs, over a fake judge."""

    def __init__(self, **quality: Any) -> None:
        self.assessed = Assessed(**quality)
        self.dropped: list[tuple[str, str]] = []
        self.shadowing = Shadowing(
            {"sentiment": self.assessed.assessment}, lambda *drop: self.dropped.append(drop)
        )
        self.task = asyncio.create_task(self.shadowing.run())


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    running = Running(**FAST)
    await running.assessed.probe_all()
    yield running
    running.task.cancel()


async def test_a_sample_is_compared_and_counted(running: Running) -> None:
    running.assessed.judge.agreements["int4"] = 0.5
    running.shadowing.offer(sample())
    await let_others_act()
    _, live = (await running.assessed.of("int4")).origins
    assert (live.origin, live.count, live.measures["agreement"].value) == ("live", 1, 0.5)
    assert running.dropped == []


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (NotComparable("not yet"), "not_ready"),
        (QueueFull("busy"), "reference_busy"),
        (NotReady("gone"), "failed"),
        (ZeroDivisionError("a defect"), "failed"),
    ],
)
async def test_what_cannot_be_compared_is_dropped_and_the_next_is_compared(
    running: Running, failure: Exception, reason: str
) -> None:
    running.assessed.judge.failures = [failure]
    running.shadowing.offer(sample())
    running.shadowing.offer(sample(given="the next"))
    await let_others_act()
    assert running.dropped == [("sentiment", reason)]
    [compared] = running.assessed.judge.compared
    assert isinstance(compared, EncodedSample)
    assert compared.input == "the next"


async def test_a_full_queue_drops(running: Running) -> None:
    running.assessed.judge.gate.clear()
    running.shadowing.offer(sample())
    await let_others_act()  # one is being compared, the queue is empty
    for _ in range(MAX_WAITING + 3):
        running.shadowing.offer(sample())
    assert running.dropped == [("sentiment", "queue_full")] * 3
    running.assessed.judge.gate.set()


async def test_more_than_the_limit_is_dropped() -> None:
    running = Running(shadow={"rate": 1, "max_per_second": 1})
    await running.assessed.probe_all()
    for _ in range(3):
        running.shadowing.offer(sample())
    await let_others_act()
    running.task.cancel()
    assert running.dropped == [("sentiment", "over_limit")] * 2


async def test_nothing_is_compared_while_it_is_not_known_what_is_deployed() -> None:
    running = Running(**FAST)
    running.shadowing.offer(sample())
    assert running.dropped == [("sentiment", "not_ready")]
    running.task.cancel()


async def test_a_variant_that_nobody_told_of_is_ignored(running: Running) -> None:
    running.shadowing.offer(sample(variant="int2"))
    running.shadowing.offer(sample())
    await let_others_act()
    assert [one.variant for one in running.assessed.judge.compared] == ["int4"]
    assert running.dropped == []


async def test_a_comparison_that_a_new_deployment_overtakes_is_dropped(running: Running) -> None:
    running.assessed.judge.gate.clear()
    running.shadowing.offer(sample())
    await let_others_act()
    await running.assessed.assessment.identify("int4", 9.0, "int4-2")
    running.assessed.judge.gate.set()
    await let_others_act()
    assert running.dropped == [("sentiment", "not_ready")]
