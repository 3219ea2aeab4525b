"""A value that is read in the background."""

import asyncio
from math import inf

import pytest

from serving.errors import NotReady
from serving.gateway import background_refresh as module
from serving.gateway.background_refresh import RefreshedValue
from tests.unit.fakes.waiting import let_others_act


class Source:
    """Answers 1, 2, 3, … when it may."""

    def __init__(self) -> None:
        self.reads = 0
        self.lasts: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None

    async def read(self, last: int) -> int:
        self.lasts.append(last)
        self.reads += 1
        number = self.reads
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return number


@pytest.fixture
def source() -> Source:
    return Source()


def over(
    source: Source, first_wait_s: float = 5, forgotten_after_s: float = 60
) -> RefreshedValue[int]:
    return RefreshedValue("the number", source.read, 0, first_wait_s, forgotten_after_s)


async def test_the_first_value_is_waited_for_and_kept(source) -> None:
    value = over(source)
    assert await asyncio.gather(value.get(), value.get(), value.get()) == [1, 1, 1]
    assert source.reads == 1


async def test_the_first_value_is_waited_for_only_so_long(source) -> None:
    source.gate.clear()
    value = over(source, first_wait_s=0.01)
    assert await value.get() == 0
    source.gate.set()
    await let_others_act()
    assert await value.get() == 1


async def test_an_old_value_is_given_while_a_new_one_is_read(source, monkeypatch) -> None:
    value = over(source)
    await value.get()
    monkeypatch.setattr(module, "MAX_AGE_S", -1)
    source.gate.clear()
    async with asyncio.timeout(2):  # it would wait for 5 s, or for ever
        assert [await value.get(), await value.get()] == [1, 1]
    await let_others_act()
    assert source.reads == 2
    source.gate.set()
    await let_others_act()
    monkeypatch.undo()
    assert await value.get() == 2


async def test_after_a_long_time_without_need_the_value_is_waited_for(source, monkeypatch) -> None:
    value = over(source, forgotten_after_s=-1)
    await value.get()
    monkeypatch.setattr(module, "MAX_AGE_S", -1)
    assert await value.get() == 2
    assert source.lasts == [0, 1]


async def test_a_value_that_is_never_forgotten_is_waited_for_once(source, monkeypatch) -> None:
    value = over(source, forgotten_after_s=inf)
    source.failure = NotReady("gone")
    assert await value.get() == 0
    monkeypatch.setattr(module, "MAX_AGE_S", -1)
    source.gate.clear()
    async with asyncio.timeout(2):  # it would wait for 5 s
        assert await value.get() == 0


async def test_the_last_value_stays_when_reading_fails(source, monkeypatch, caplog) -> None:
    value = over(source)
    await value.get()
    monkeypatch.setattr(module, "MAX_AGE_S", -1)
    source.failure = NotReady("gone")
    for _ in range(5):
        assert await value.get() == 1
        await let_others_act()
    assert len(caplog.records) == 1
    source.failure = None
    await value.get()
    await let_others_act()
    assert await value.get() == 7


async def test_a_read_that_hangs_is_given_up(source, monkeypatch) -> None:
    monkeypatch.setattr(module, "READ_TIMEOUT_S", 0.01)
    source.gate.clear()
    assert await over(source).get() == 0
