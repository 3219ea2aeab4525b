"""Only idle replicas are asked, one thing at a time."""

import asyncio

import pytest

from serving.errors import NotReady, QueueFull
from serving.monitor import background
from serving.monitor.background import ANSWER_S, Background
from serving.seams import Description, InferenceRequest, Outcome
from tests.unit.fakes.backends import FakeBackends, describe, served_model
from tests.unit.fakes.encoder import FakeTask
from tests.unit.fakes.waiting import let_others_act

MODEL = served_model("minilm", "embeddings", ("fp32", "int4"), "fp32", "fp32")
NAME = ("minilm", "int4")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "FIRST_PAUSE_S", 0.001)


class BusyBackend:
    """Refuses some times; then answers when ``gate`` opens."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.requests: list[InferenceRequest] = []
        self.at_work = 0
        self.gate = asyncio.Event()

    async def infer(self, request: InferenceRequest) -> Outcome:
        self.requests.append(request)
        if self.refusals:
            self.refusals -= 1
            raise QueueFull("busy")
        self.at_work += 1
        assert self.at_work == 1
        await self.gate.wait()
        self.at_work -= 1
        return await FakeBackends([MODEL]).encoders[NAME].infer(request)

    async def describe(self) -> Description:
        return describe(FakeTask())


class BusyBackends(FakeBackends):
    """One of them stands for all."""

    def __init__(self, backend: BusyBackend) -> None:
        super().__init__([MODEL])
        self.backend = backend

    def encoder(self, model: str, variant: str) -> BusyBackend:
        return self.backend


def over(backend: BusyBackend) -> Background:
    return Background(BusyBackends(backend))


async def test_a_busy_replica_is_asked_again_until_it_is_idle() -> None:
    backend = BusyBackend(refusals=3)
    backend.gate.set()
    outcome = await over(backend).infer(NAME, ["a text"], patience_s=60)
    assert len(outcome.rows) == 1
    assert len(backend.requests) == 4
    assert all(request.background for request in backend.requests)


async def test_many_inputs_at_once_may_take_longer_than_a_few() -> None:
    backends = FakeBackends([MODEL])
    for number in (1, 8, 72):
        await Background(backends).infer(NAME, ["a text"] * number, patience_s=60)
    timeouts = [request.timeout_s for request in backends.encoders[NAME].requests]
    assert timeouts == [ANSWER_S, ANSWER_S, 9 * ANSWER_S]


async def test_patience_ends() -> None:
    backend = BusyBackend(refusals=1_000_000)
    with pytest.raises(QueueFull):
        await over(backend).infer(NAME, ["a text"], patience_s=0.05)
    assert len(backend.requests) > 1


async def test_other_failures_are_not_waited_for() -> None:
    backends = FakeBackends([MODEL])
    backends.encoders[NAME].failure = NotReady("gone")
    with pytest.raises(NotReady):
        await Background(backends).infer(NAME, ["a text"], patience_s=60)


async def test_one_thing_at_a_time() -> None:
    backend = BusyBackend(refusals=0)
    asking = over(backend)
    both = asyncio.gather(
        asking.infer(NAME, ["one"], patience_s=60), asking.infer(NAME, ["two"], patience_s=60)
    )
    await let_others_act()
    assert len(backend.requests) == 1
    backend.gate.set()
    await both
    assert len(backend.requests) == 2
