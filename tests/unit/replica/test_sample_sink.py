"""What happens to samples on their way to a quality process that is slow, dead or not there."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from serving.config import ShadowConfig
from serving.quality.rate_limit import RateLimit
from serving.replica import sample_sink
from serving.replica.sample_sink import MAX_WAITING, QueuedSink
from serving.seams import NO_OPTIONS, DropReason, EncodedSample, Sample
from tests.unit.fakes.waiting import MAX_WAIT_S, let_others_act


def sample(number: int) -> EncodedSample:
    return EncodedSample("minilm", "int4", str(number), False, NO_OPTIONS, np.zeros(2, np.float32))


class Receiver:
    """Takes samples once ``gate`` is set, and raises ``failures`` first."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.calls = 0
        self.at_once = self.most_at_once = 0
        self.failures: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.drops: list[DropReason] = []
        self.ended = asyncio.Event()
        """Set when the second call has."""

    async def send(self, sample: Sample) -> None:
        assert isinstance(sample, EncodedSample)
        assert isinstance(sample.input, str)
        self.calls += 1
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            await self.gate.wait()
            if self.failures:
                raise self.failures.pop(0)
            self.texts.append(sample.input)
        finally:
            self.at_once -= 1
            if self.calls == 2:
                self.ended.set()

    def sink(self, rate: float = 1, per_second: float = 1_000, chance: float = 0.5) -> QueuedSink:
        limit = RateLimit(per_second, lambda: 0)
        return QueuedSink(
            ShadowConfig(rate=rate), self.send, self.drops.append, lambda: chance, limit
        )


@pytest.mark.parametrize(
    ("rate", "chance", "wants"),
    [(0.5, 0.4999, True), (0.5, 0.5, False), (1, 0.9999, True), (1e-9, 0, True)],
)
async def test_a_random_share_is_wanted(rate: float, chance: float, wants: bool) -> None:
    receiver = Receiver()
    assert receiver.sink(rate, chance=chance).wants() == wants
    assert receiver.drops == []


async def test_what_is_over_the_limit_is_counted_and_not_wanted() -> None:
    receiver = Receiver()
    sink = receiver.sink(per_second=2)
    assert [sink.wants() for _ in range(4)] == [True, True, False, False]
    assert receiver.drops == ["over_limit"] * 2


async def test_the_limit_is_that_of_the_configuration() -> None:
    receiver = Receiver()
    shadow = ShadowConfig(rate=1, max_per_second=3)
    sink = QueuedSink(shadow, receiver.send, receiver.drops.append)
    assert sum(sink.wants() for _ in range(10)) == 3


async def test_samples_are_sent_in_order_and_one_at_a_time() -> None:
    receiver = Receiver()
    sink = receiver.sink()
    for number in range(5):
        sink.offer(sample(number))
        await asyncio.sleep(0)
    await let_others_act()
    sink.offer(sample(5))
    await let_others_act()
    assert receiver.texts == list("012345")
    assert receiver.most_at_once == 1
    assert receiver.drops == []


async def test_what_finds_no_room_is_counted() -> None:
    receiver = Receiver()
    receiver.gate.clear()
    sink = receiver.sink()
    sink.offer(sample(0))
    await let_others_act()
    for number in range(1, MAX_WAITING + 4):
        sink.offer(sample(number))
    assert receiver.drops == ["queue_full"] * 3
    receiver.gate.set()
    async with asyncio.timeout(MAX_WAIT_S):
        while len(receiver.texts) <= MAX_WAITING:
            await let_others_act()
    assert receiver.texts == [str(number) for number in range(MAX_WAITING + 1)]


async def test_a_receiver_that_fails_costs_one_sample() -> None:
    receiver = Receiver()
    receiver.failures = [RuntimeError("dead")]
    sink = receiver.sink()
    for number in range(3):
        sink.offer(sample(number))
    await let_others_act()
    assert receiver.texts == ["1", "2"]
    assert receiver.drops == ["unreachable"]


async def test_a_receiver_that_does_not_answer_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sample_sink, "SEND_TIMEOUT_S", 0.001)
    receiver = Receiver()
    receiver.gate.clear()
    sink = receiver.sink()
    for number in range(2):
        sink.offer(sample(number))
    async with asyncio.timeout(MAX_WAIT_S):
        await receiver.ended.wait()
    await let_others_act()
    assert receiver.drops == ["unreachable"] * 2
    assert (receiver.calls, receiver.at_once) == (2, 0)
    receiver.gate.set()
    sink.offer(sample(2))
    await let_others_act()
    assert receiver.texts == ["2"]
