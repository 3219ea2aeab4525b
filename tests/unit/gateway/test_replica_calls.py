"""Calls of either kind wait for the variant, are sent again after a death, keep the deadline."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from ray.exceptions import RayActorError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException

from serving.errors import DeadlineExceeded, InvalidField, NotReady, QueueFull
from serving.gateway import replica_calls
from serving.gateway.cluster import Cluster
from serving.gateway.remote_variants import RemoteVariants
from serving.seams import (
    NO_OPTIONS,
    Description,
    EncoderBackend,
    GeneratorBackend,
    InferenceRequest,
    Outcome,
    ScoreRequest,
    TokenizedText,
    TokenLogprob,
    TokensRequest,
)
from tests.unit.fakes.backends import describe
from tests.unit.fakes.encoder import TIMINGS, FakeTask

OUTCOME = Outcome(np.zeros((1, 2), np.float32), (), 3, TIMINGS)
REQUEST = InferenceRequest(("x",), truncate=False, options=NO_OPTIONS, timeout_s=5)
SHORT = InferenceRequest(("x",), truncate=False, options=NO_OPTIONS, timeout_s=0.05)
SCORES = (TokenLogprob(3, -0.5, ((3, -0.5),)),)

Answer = Outcome | tuple[TokenLogprob, ...] | TokenizedText | BaseException
Asked = InferenceRequest | ScoreRequest | TokensRequest


class FakeCluster:
    """Hands out a handle whose replicas give the planned answers, one per call."""

    def __init__(self, *answers: Answer | None) -> None:
        self.answers = list(answers)
        self.requests: list[Asked] = []
        self.asked: list[tuple[str, str]] = []
        self.reason: str | None = None
        self.waits = asyncio.Event()

    async def require_ready(self, model: str, variant: str) -> None:
        if self.reason is not None:
            raise NotReady(self.reason)

    async def method(self, model: str, variant: str, name: str, *, stream: bool) -> SimpleNamespace:
        assert not stream
        self.asked.append((model, variant))
        methods = {"infer": self._infer, "score": self._score, "tokens": self._tokens}
        return SimpleNamespace(remote=methods[name])

    async def describe(self, model: str, variant: str) -> Description:
        self.asked.append((model, variant))
        return describe(FakeTask())

    async def _infer(self, request: InferenceRequest) -> Answer:
        assert isinstance(request, InferenceRequest)
        return await self._answer(request)

    async def _score(self, request: ScoreRequest) -> Answer:
        assert isinstance(request, ScoreRequest)
        return await self._answer(request)

    async def _tokens(self, request: TokensRequest) -> Answer:
        assert isinstance(request, TokensRequest)
        return await self._answer(request)

    async def _answer(self, request: Asked) -> Answer:
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else None
        if answer is None:
            self.waits.set()
            await asyncio.Event().wait()
        if isinstance(answer, RayActorError | RayServeException | asyncio.CancelledError):
            raise answer
        assert answer is not None
        return answer


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_calls, "RETRY_PAUSE_S", 0.001)


def encoder(cluster: FakeCluster) -> EncoderBackend:
    return RemoteVariants(cast(Cluster, cluster)).encoder("minilm", "int4")


def generator(cluster: FakeCluster) -> GeneratorBackend:
    return RemoteVariants(cast(Cluster, cluster)).generator("smollm2", "int4")


async def test_a_replica_s_answer_is_passed_on() -> None:
    cluster = FakeCluster(OUTCOME)
    assert await encoder(cluster).infer(REQUEST) is OUTCOME
    assert cluster.asked == [("minilm", "int4")]


async def test_the_replica_gets_the_time_that_is_left() -> None:
    cluster = FakeCluster(RayActorError(), OUTCOME)
    await encoder(cluster).infer(REQUEST)
    first, second = (request.timeout_s for request in cluster.requests)
    assert 0 < second < first <= REQUEST.timeout_s


async def test_an_error_that_a_replica_returns_is_raised() -> None:
    with pytest.raises(InvalidField, match="too long") as caught:
        await encoder(FakeCluster(InvalidField("too long", param="input"))).infer(REQUEST)
    assert caught.value.param == "input"


async def test_a_request_whose_replica_died_is_sent_again() -> None:
    cluster = FakeCluster(RayActorError(), RayActorError(), OUTCOME)
    assert await encoder(cluster).infer(REQUEST) is OUTCOME
    assert len(cluster.requests) == 3


async def test_a_request_that_the_replica_gave_up_is_sent_again() -> None:
    cluster = FakeCluster(asyncio.CancelledError(), OUTCOME)
    assert await encoder(cluster).infer(REQUEST) is OUTCOME
    assert len(cluster.requests) == 2


async def test_a_client_that_leaves_is_not_held() -> None:
    cluster = FakeCluster()
    asking = asyncio.create_task(encoder(cluster).infer(REQUEST))
    await cluster.waits.wait()
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    assert len(cluster.requests) == 1


async def test_replicas_that_keep_dying_end_at_the_deadline() -> None:
    with pytest.raises(DeadlineExceeded):
        await encoder(FakeCluster(*[RayActorError()] * 10_000)).infer(SHORT)


async def test_no_answer_in_time_is_told() -> None:
    with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.05 s"):
        await encoder(FakeCluster()).infer(SHORT)


async def test_a_variant_that_is_not_ready_gets_no_request() -> None:
    cluster = FakeCluster(OUTCOME)
    cluster.reason = "loading"
    for call in (encoder(cluster).infer(REQUEST), encoder(cluster).describe()):
        with pytest.raises(NotReady, match="loading"):
            await call
    assert cluster.asked == []


async def test_a_variant_that_serve_has_given_up_is_not_ready() -> None:
    given_up = DeploymentUnavailableError(DeploymentID("minilm--int4"))
    with pytest.raises(NotReady, match="minilm:int4 has no replica"):
        await encoder(FakeCluster(given_up)).infer(REQUEST)


async def test_a_score_is_asked_for_as_an_inference_is() -> None:
    cluster = FakeCluster(RayActorError(), SCORES)
    asked = ScoreRequest((1, 2), (3,), timeout_s=5, background=True)
    assert await generator(cluster).score(asked) is SCORES
    first, second = cluster.requests
    assert 0 < second.timeout_s < first.timeout_s <= 5
    assert replace(second, timeout_s=5) == asked


async def test_tokens_are_asked_for_as_an_inference_is() -> None:
    found = TokenizedText((97,), ("a",), "a", 128)
    cluster = FakeCluster(RayActorError(), found)
    asked = TokensRequest("a", (), (), timeout_s=5)
    assert await generator(cluster).tokens(asked) is found
    first, second = cluster.requests
    assert 0 < second.timeout_s < first.timeout_s <= 5
    assert replace(second, timeout_s=5) == asked


async def test_a_score_that_a_replica_refuses_or_delays_is_an_error() -> None:
    with pytest.raises(QueueFull, match="other work"):
        await generator(FakeCluster(QueueFull("other work"))).score(ScoreRequest("a", "b", 5))
    with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.05 s"):
        await generator(FakeCluster()).score(ScoreRequest("a", "b", 0.05))


async def test_either_kind_says_what_is_loaded() -> None:
    for backend in (encoder(FakeCluster()), generator(FakeCluster())):
        assert await backend.describe() == describe(FakeTask())
