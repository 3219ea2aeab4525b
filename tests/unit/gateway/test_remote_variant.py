"""The remote backend: waits for the variant, asks again after a death, keeps the deadline."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from ray.exceptions import RayActorError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException

from serving.errors import DeadlineExceeded, InvalidField, NotReady, QueueFull
from serving.gateway import remote_variant as module
from serving.gateway.remote_variant import RemoteBackend, RemoteVariants
from serving.seams import Description, InferenceRequest, Outcome, ScoreRequest, TokenLogprob
from tests.unit.fakes import TIMINGS, FakeTask, describe

OUTCOME = Outcome(np.zeros((1, 2), np.float32), (), 3, TIMINGS)
REQUEST = InferenceRequest(("x",), truncate=False, dimensions=None, timeout_s=5)
SHORT = InferenceRequest(("x",), truncate=False, dimensions=None, timeout_s=0.05)
SCORES = (TokenLogprob(3, -0.5, ((3, -0.5),)),)

Answer = Outcome | tuple[TokenLogprob, ...] | BaseException


class FakeCluster:
    """Hands out a handle whose replicas give the planned answers, one per call."""

    def __init__(self, *answers: Answer | None) -> None:
        self.answers = list(answers)
        self.requests: list[InferenceRequest | ScoreRequest] = []
        self.asked: list[tuple[str, str]] = []
        self.reason: str | None = None
        self.waits = asyncio.Event()

    async def require_ready(self, model: str, variant: str) -> None:
        if self.reason is not None:
            raise NotReady(self.reason)

    async def handle(self, model: str, variant: str) -> SimpleNamespace:
        self.asked.append((model, variant))
        return SimpleNamespace(
            infer=SimpleNamespace(remote=self._infer), score=SimpleNamespace(remote=self._score)
        )

    async def describe(self, model: str, variant: str) -> Description:
        self.asked.append((model, variant))
        return describe(FakeTask())

    async def _infer(self, request: InferenceRequest) -> Answer:
        assert isinstance(request, InferenceRequest)
        return await self._answer(request)

    async def _score(self, request: ScoreRequest) -> Answer:
        assert isinstance(request, ScoreRequest)
        return await self._answer(request)

    async def _answer(self, request: InferenceRequest | ScoreRequest) -> Answer:
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else None
        if answer is None:
            self.waits.set()
            await asyncio.Event().wait()
        if isinstance(answer, RayActorError | RayServeException | asyncio.CancelledError):
            raise answer
        return answer


@pytest.fixture
def backend_over(monkeypatch) -> Callable[[FakeCluster], RemoteBackend]:
    monkeypatch.setattr(module, "RETRY_PAUSE_S", 0.001)
    return lambda cluster: RemoteVariants(cluster).backend("minilm", "int4")  # type: ignore


async def test_a_replica_s_answer_is_passed_on(backend_over) -> None:
    cluster = FakeCluster(OUTCOME)
    assert await backend_over(cluster).infer(REQUEST) is OUTCOME
    assert cluster.asked == [("minilm", "int4")]


async def test_the_replica_gets_the_time_that_is_left(backend_over) -> None:
    cluster = FakeCluster(RayActorError(), OUTCOME)
    await backend_over(cluster).infer(REQUEST)
    first, second = (request.timeout_s for request in cluster.requests)
    assert 0 < second < first <= REQUEST.timeout_s


async def test_an_error_that_a_replica_returns_is_raised(backend_over) -> None:
    with pytest.raises(InvalidField, match="too long") as caught:
        await backend_over(FakeCluster(InvalidField("too long", param="input"))).infer(REQUEST)
    assert caught.value.param == "input"


async def test_a_request_whose_replica_died_is_sent_again(backend_over) -> None:
    cluster = FakeCluster(RayActorError(), RayActorError(), OUTCOME)
    assert await backend_over(cluster).infer(REQUEST) is OUTCOME
    assert len(cluster.requests) == 3


async def test_a_request_that_the_replica_gave_up_is_sent_again(backend_over) -> None:
    cluster = FakeCluster(asyncio.CancelledError(), OUTCOME)
    assert await backend_over(cluster).infer(REQUEST) is OUTCOME
    assert len(cluster.requests) == 2


async def test_a_client_that_leaves_is_not_held(backend_over) -> None:
    cluster = FakeCluster()
    asking = asyncio.create_task(backend_over(cluster).infer(REQUEST))
    await cluster.waits.wait()
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    assert len(cluster.requests) == 1


async def test_replicas_that_keep_dying_end_at_the_deadline(backend_over) -> None:
    with pytest.raises(DeadlineExceeded):
        await backend_over(FakeCluster(*[RayActorError()] * 10_000)).infer(SHORT)


async def test_no_answer_in_time_is_told(backend_over) -> None:
    with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.05 s"):
        await backend_over(FakeCluster()).infer(SHORT)


async def test_a_variant_that_is_not_ready_gets_no_request(backend_over) -> None:
    cluster = FakeCluster(OUTCOME)
    cluster.reason = "loading"
    for call in (backend_over(cluster).infer(REQUEST), backend_over(cluster).describe()):
        with pytest.raises(NotReady, match="loading"):
            await call
    assert cluster.asked == []


async def test_describe_asks_a_replica(backend_over) -> None:
    assert await backend_over(FakeCluster()).describe() == describe(FakeTask())


async def test_a_variant_that_serve_has_given_up_is_not_ready(backend_over) -> None:
    given_up = DeploymentUnavailableError(DeploymentID("minilm--int4"))
    with pytest.raises(NotReady, match="minilm:int4 has no replica"):
        await backend_over(FakeCluster(given_up)).infer(REQUEST)


async def test_a_score_is_asked_for_as_an_inference_is(backend_over) -> None:
    cluster = FakeCluster(RayActorError(), SCORES)
    asked = ScoreRequest((1, 2), (3,), timeout_s=5, background=True)
    assert await backend_over(cluster).score(asked) is SCORES
    first, second = cluster.requests
    assert 0 < second.timeout_s < first.timeout_s <= 5
    assert replace(second, timeout_s=5) == asked


async def test_a_score_that_a_replica_refuses_or_delays_is_an_error(backend_over) -> None:
    with pytest.raises(QueueFull, match="other work"):
        await backend_over(FakeCluster(QueueFull("other work"))).score(ScoreRequest("a", "b", 5))
    with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.05 s"):
        await backend_over(FakeCluster()).score(ScoreRequest("a", "b", 0.05))
