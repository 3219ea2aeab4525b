"""What a replica answers to the gateway's calls, without Ray around it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from serving.config import ModelConfig, ServerConfig
from serving.errors import ConfigError, DeadlineExceeded, InternalError, InvalidField, NotReady
from serving.metrics import Labels, ReplicaMetrics
from serving.replica import deployment
from serving.replica.held import Held
from serving.seams import Checkpoint, GenerationRequest, InferenceRequest, Sampling
from tests.unit.fakes import FakeBackend, FakeGeneratorBackend

REQUEST = GenerationRequest(
    ("a",), (), 1, 1, Sampling(0, 1, 0, 0, 0, 0, None), (), False, True, 1, 1
)
# Serve's decorator wraps the class in another one, which reports to a running cluster.
Replica = deployment.Replica.__mro__[1]


class Parts:
    """What the replica holds."""

    def __init__(self) -> None:
        self.backend: Any = FakeGeneratorBackend()
        self.metrics = ReplicaMetrics(Labels("tiny", "fp32", "generation"), "r1")
        self.health: Exception | None = None
        self.is_closed = False

    def check_health(self) -> None:
        if self.health is not None:
            raise self.health

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def parts(monkeypatch) -> Parts:
    parts = Parts()

    async def hold(*arguments: object) -> Held:
        if isinstance(parts.backend, Exception):
            raise parts.backend
        return Held(parts.backend, parts.metrics, parts.check_health, parts.close)

    context = SimpleNamespace(replica_id=SimpleNamespace(unique_id="r1"))
    monkeypatch.setattr(deployment.serve, "get_replica_context", lambda: context)
    monkeypatch.setattr(deployment, "hold", hold)
    return parts


async def start(**variant: Any) -> Any:
    model = ModelConfig(
        name="tiny", task="generation", source="/m", variants=({"name": "fp32", **variant},)
    )
    replica = Replica.__new__(Replica)
    await replica.__init__(model, model.variants[0], Checkpoint("/m"), ServerConfig())
    return replica


async def streamed(replica: Any) -> list[Any]:
    return [item async for item in replica.stream(REQUEST)]


async def test_a_stream_passes_every_item_on(parts: Parts) -> None:
    assert await streamed(await start()) == parts.backend.script
    assert parts.backend.requests == [REQUEST]


async def test_an_expected_error_is_the_last_item(parts: Parts) -> None:
    failure = DeadlineExceeded("too late")
    parts.backend.script[1:] = [failure]
    items = await streamed(await start())
    assert items == [parts.backend.script[0], failure]


async def test_an_error_that_nobody_foresaw_is_one_without_its_details(parts: Parts) -> None:
    parts.backend.script[:] = [ZeroDivisionError("secret")]
    [error] = await streamed(await start())
    assert isinstance(error, InternalError)
    assert "secret" not in error.message


async def test_an_encoder_refuses_to_stream(parts: Parts) -> None:
    parts.backend = FakeBackend("tiny:fp32", ())
    [error] = await streamed(await start())
    assert isinstance(error, InvalidField)


async def test_a_caller_that_goes_away_ends_the_work(parts: Parts) -> None:
    stream = (await start()).stream(REQUEST)
    await anext(stream)
    assert parts.backend.streams == 1
    await stream.aclose()
    assert parts.backend.streams == 0


async def test_a_generator_refuses_rows(parts: Parts) -> None:
    answer = await (await start()).infer(InferenceRequest(("a",), False, None, 1))
    assert isinstance(answer, InvalidField)


async def test_a_variant_that_cannot_be_loaded_says_why_on_every_call(parts: Parts) -> None:
    parts.backend = ConfigError("no such kernel")
    replica = await start()
    reason = "tiny:fp32 failed to load: ConfigError: no such kernel"
    for answer in (
        *(await streamed(replica)),
        await replica.infer(InferenceRequest(("a",), False, None, 1)),
        await replica.describe(),
    ):
        assert isinstance(answer, NotReady)
        assert answer.message == reason
    replica.check_health()
    assert "quantserve_weights_bytes" not in await replica.metrics()


async def test_beside_other_replicas_one_that_cannot_be_loaded_goes(parts: Parts) -> None:
    parts.backend = ConfigError("no such kernel")
    with pytest.raises(ConfigError):
        await start(replicas=2)


async def test_health_and_end_are_those_of_what_is_held(parts: Parts) -> None:
    replica = await start()
    replica.check_health()
    parts.health = RuntimeError("stuck")
    with pytest.raises(RuntimeError, match="stuck"):
        replica.check_health()
    replica.__del__()
    assert parts.is_closed


async def test_sizes_are_on_the_page_as_soon_as_there_are_any(parts: Parts) -> None:
    page = await (await start()).metrics()
    assert 'quantserve_weights_bytes{model="tiny",replica="r1",variant="fp32"} 100.0' in page
