"""The remote generator: passes pieces on, survives deaths before the first, ends calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.exceptions import RayActorError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError, RequestCancelledError

from serving.errors import DeadlineExceeded, InternalError, InvalidField, NotReady, QueueFull
from serving.gateway import replica_calls
from serving.gateway.cluster import Cluster
from serving.gateway.remote_generator import MOST_DEATHS, RemoteGenerator
from serving.gateway.replica_calls import ReplicaCalls
from serving.seams import (
    GenerationChunk,
    GenerationRequest,
    GenerationSummary,
    GenerationTimings,
    Sampling,
)

TIMINGS = GenerationTimings(queue=0.001, tokenize=0.002, prefill=0.004, decode=0.008, total=0.016)
CHUNKS = [GenerationChunk(0, text, (), None, TIMINGS) for text in ("a", "b", "c")]
SUMMARY = GenerationSummary(prompt_tokens=1, cached_tokens=0, output_tokens=3, timings=TIMINGS)
ANSWER = [*CHUNKS, SUMMARY]
REQUEST = GenerationRequest(
    prompts=("x",),
    messages=(),
    n=1,
    max_tokens=3,
    sampling=Sampling(1, 1, 0, 7, 0, 0, None),
    stop=(),
    echo=False,
    stream=True,
    first_token_timeout_s=5,
    timeout_s=50,
)
WHOLE = replace(REQUEST, stream=False)


class Wait:
    """A planned item that never comes."""


Planned = GenerationChunk | GenerationSummary | BaseException | type[Wait]


class FakeCall:
    """What Serve returns for a streaming call; exceptions that are not values are raised."""

    def __init__(self, items: list[Planned], waits: asyncio.Event) -> None:
        self._items = items
        self._waits = waits
        self.cancelled = asyncio.Event()

    async def __anext__(self) -> Any:
        if self.cancelled.is_set():
            raise RequestCancelledError
        if not self._items:
            raise StopAsyncIteration
        item = self._items.pop(0)
        if item is Wait:
            self._waits.set()
            await self.cancelled.wait()
            raise RequestCancelledError
        if isinstance(item, RayActorError | DeploymentUnavailableError | asyncio.CancelledError):
            raise item
        return item

    def cancel(self) -> None:
        self.cancelled.set()


class FakeCluster:
    """Hands out a handle whose calls have the planned items, one list per call."""

    def __init__(self, *plans: list[Any]) -> None:
        self._plans = [list(plan) for plan in plans]
        self.calls: list[FakeCall] = []
        self.requests: list[GenerationRequest] = []
        self.reason: str | None = None
        self.waits = asyncio.Event()

    async def require_ready(self, model: str, variant: str) -> None:
        if self.reason is not None:
            raise NotReady(self.reason)

    async def method(self, model: str, variant: str, name: str, *, stream: bool) -> SimpleNamespace:
        assert (model, variant, name, stream) == ("smollm2", "int4", "stream", True)
        return SimpleNamespace(remote=self._remote)

    def _remote(self, request: GenerationRequest) -> FakeCall:
        self.requests.append(request)
        plan = self._plans.pop(0) if self._plans else [RayActorError()]
        self.calls.append(FakeCall(plan, self.waits))
        return self.calls[-1]

    def all_cancelled(self) -> bool:
        """Whether every call that still might do something was told to stop."""
        return all(call.cancelled.is_set() for call in self.calls)


@pytest.fixture
def backend_over(monkeypatch) -> Callable[[FakeCluster], RemoteGenerator]:
    monkeypatch.setattr(replica_calls, "RETRY_PAUSE_S", 0.001)
    return lambda cluster: RemoteGenerator(ReplicaCalls(cast(Cluster, cluster), "smollm2", "int4"))


async def read(backend: RemoteGenerator, request: GenerationRequest, got: list[Any]) -> None:
    async with aclosing(backend.stream(request)) as pieces:
        async for piece in pieces:
            got.append(piece)


async def test_pieces_are_passed_on(backend_over) -> None:
    got: list[Any] = []
    cluster = FakeCluster(ANSWER)
    await read(backend_over(cluster), REQUEST, got)
    assert got == ANSWER
    assert cluster.all_cancelled()


async def test_the_replica_gets_the_time_that_is_left(backend_over) -> None:
    cluster = FakeCluster([RayActorError()], ANSWER)
    await read(backend_over(cluster), REQUEST, [])
    first, second = cluster.requests
    assert 0 < second.first_token_timeout_s < first.first_token_timeout_s <= 5
    assert 5 < second.timeout_s < first.timeout_s <= 50
    assert replace(second, first_token_timeout_s=5, timeout_s=50) == REQUEST


@pytest.mark.parametrize("request_", [REQUEST, WHOLE])
async def test_deaths_before_the_first_piece_are_not_noticed(backend_over, request_) -> None:
    got: list[Any] = []
    cluster = FakeCluster([RayActorError()], [RayActorError()], ANSWER)
    await read(backend_over(cluster), request_, got)
    assert got == ANSWER


@pytest.mark.parametrize("before", [1, 2])
async def test_a_death_after_the_first_piece_is_an_error(backend_over, before: int) -> None:
    got: list[Any] = []
    cluster = FakeCluster([*CHUNKS[:before], RayActorError()], ANSWER)
    with pytest.raises(InternalError, match=r"smollm2:int4 died in the middle of the answer"):
        await read(backend_over(cluster), REQUEST, got)
    assert got == CHUNKS[:before]
    assert len(cluster.calls) == 1


async def test_replicas_that_keep_dying_end_at_the_first_token_s_deadline(backend_over) -> None:
    request = replace(REQUEST, first_token_timeout_s=0.05)
    with pytest.raises(DeadlineExceeded, match=r"no first token within 0\.05 s"):
        await read(backend_over(FakeCluster()), request, [])


@pytest.mark.parametrize("before", [1, 3])
async def test_a_whole_answer_is_begun_again_after_a_death_in_its_middle(
    backend_over, before: int
) -> None:
    got: list[Any] = []
    cluster = FakeCluster([*CHUNKS[:before], RayActorError()], ANSWER)
    await read(backend_over(cluster), WHOLE, got)
    assert got == ANSWER
    assert cluster.all_cancelled()


async def test_a_whole_answer_has_its_time_once(backend_over) -> None:
    cluster = FakeCluster([CHUNKS[0], RayActorError()], [Wait])
    with pytest.raises(DeadlineExceeded, match=r"not finished within 0\.05 s"):
        await read(backend_over(cluster), replace(WHOLE, timeout_s=0.05), [])
    first, second = cluster.requests
    assert second.timeout_s < first.timeout_s
    assert second.first_token_timeout_s < first.timeout_s


async def test_a_request_does_not_end_one_replica_after_the_other(backend_over) -> None:
    cluster = FakeCluster(*[[CHUNKS[0], RayActorError()]] * 10)
    got: list[Any] = []
    with pytest.raises(InternalError, match="died in the middle"):
        await read(backend_over(cluster), WHOLE, got)
    assert got == []
    assert len(cluster.calls) == MOST_DEATHS


async def test_replicas_that_keep_dying_before_the_first_piece_end_it_too(backend_over) -> None:
    request = replace(WHOLE, first_token_timeout_s=0.2)
    cluster = FakeCluster()
    began = asyncio.get_running_loop().time()
    with pytest.raises(InternalError, match="died"):
        await read(backend_over(cluster), request, [])
    # Each death is passed over for the time of a first token, and for that once.
    assert asyncio.get_running_loop().time() - began >= 0.2
    assert cluster.requests[-MOST_DEATHS].first_token_timeout_s < 0.01


async def test_no_first_token_in_time_ends_the_call(backend_over) -> None:
    cluster = FakeCluster([Wait])
    with pytest.raises(DeadlineExceeded, match=r"no first token within 0\.01 s"):
        await read(backend_over(cluster), replace(REQUEST, first_token_timeout_s=0.01), [])
    assert cluster.all_cancelled()


async def test_a_whole_answer_may_take_longer_than_a_first_token(backend_over) -> None:
    cluster = FakeCluster([Wait])
    request = replace(WHOLE, first_token_timeout_s=0.001, timeout_s=0.01)
    with pytest.raises(DeadlineExceeded, match=r"not finished within 0\.01 s"):
        await read(backend_over(cluster), request, [])
    assert cluster.all_cancelled()


async def test_an_answer_that_does_not_end_in_time_is_cut_off(backend_over) -> None:
    got: list[Any] = []
    cluster = FakeCluster([CHUNKS[0], Wait])
    with pytest.raises(DeadlineExceeded, match=r"not finished within 0\.01 s"):
        await read(backend_over(cluster), replace(REQUEST, timeout_s=0.01), got)
    assert got == CHUNKS[:1]


@pytest.mark.parametrize("before", [0, 1])
async def test_an_error_that_a_replica_sends_is_raised(backend_over, before: int) -> None:
    got: list[Any] = []
    cluster = FakeCluster([*CHUNKS[:before], QueueFull("full", retry_after_s=2)])
    with pytest.raises(QueueFull, match="full") as caught:
        await read(backend_over(cluster), REQUEST, got)
    assert caught.value.retry_after_s == 2
    assert len(got) == before
    assert cluster.all_cancelled()


@pytest.mark.parametrize("num_read", [1, 2])
async def test_closing_ends_the_call(backend_over, num_read: int) -> None:
    cluster = FakeCluster(ANSWER)
    pieces = backend_over(cluster).stream(REQUEST)
    for _ in range(num_read):
        await anext(pieces)
    assert not cluster.all_cancelled()
    await pieces.aclose()
    assert cluster.all_cancelled()


@pytest.mark.parametrize("items", [[Wait], [CHUNKS[0], Wait]])
async def test_a_cancelled_consumer_ends_the_call(backend_over, items: list[Any]) -> None:
    cluster = FakeCluster(items)
    reading = asyncio.create_task(read(backend_over(cluster), REQUEST, []))
    await cluster.waits.wait()
    reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled()
    assert cluster.all_cancelled()


async def test_a_call_that_the_replica_gave_up_is_no_client_that_left(backend_over) -> None:
    cluster = FakeCluster([CHUNKS[0], asyncio.CancelledError()])
    with pytest.raises(InternalError, match="died in the middle"):
        await read(backend_over(cluster), REQUEST, [])


async def test_a_variant_that_is_not_ready_gets_no_request(backend_over) -> None:
    cluster = FakeCluster(ANSWER)
    cluster.reason = "loading"
    with pytest.raises(NotReady, match="loading"):
        await read(backend_over(cluster), REQUEST, [])
    assert cluster.requests == []


async def test_a_variant_that_serve_has_given_up_is_not_ready(backend_over) -> None:
    given_up = DeploymentUnavailableError(DeploymentID("smollm2--int4"))
    with pytest.raises(NotReady, match="smollm2:int4 has no replica"):
        await read(backend_over(FakeCluster([given_up])), REQUEST, [])


async def test_a_refusal_keeps_its_field(backend_over) -> None:
    refusal = InvalidField("too long", param="prompt")
    with pytest.raises(InvalidField, match="too long") as caught:
        await read(backend_over(FakeCluster([refusal])), REQUEST, [])
    assert caught.value.param == "prompt"
