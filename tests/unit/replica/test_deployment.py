"""What a replica answers to the gateway's calls, without Ray around it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from serving.artifacts import ArtifactRequest
from serving.config import ModelConfig, ServerConfig, VariantConfig
from serving.errors import (
    ConfigError,
    DeadlineExceeded,
    InternalError,
    InvalidField,
    MayPass,
    NotReady,
    QueueFull,
)
from serving.metrics import Labels, ReplicaMetrics
from serving.replica import deployment
from serving.replica.loaded_variant import LoadedVariant
from serving.seams import (
    NO_OPTIONS,
    Checkpoint,
    EncodedSample,
    GenerationRequest,
    InferenceRequest,
    Sample,
    Sampling,
    ScoreRequest,
    TokensRequest,
)
from tests.unit.fakes.backends import FakeEncoderBackend, FakeGeneratorBackend
from tests.unit.fakes.waiting import let_others_act

REQUEST = GenerationRequest(
    ("a",), (), 1, 1, Sampling(0, 1, 0, 0, 0, 0, None), (), False, True, 1, 1
)
# Serve's decorator wraps the class in another one, which reports to a running cluster.
Replica: Any = deployment.Replica.__mro__[1]


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

    async def load(*arguments: object) -> LoadedVariant:
        if isinstance(parts.backend, Exception):
            raise parts.backend
        return LoadedVariant(parts.backend, parts.metrics, parts.check_health, parts.close)

    # What comes before loading needs Ray and the artifact store.
    context = SimpleNamespace(replica_id=SimpleNamespace(unique_id="r1"))
    monkeypatch.setattr("ray.serve.get_replica_context", lambda: context)
    monkeypatch.setattr(deployment, "_load_in_turn", load)
    return parts


async def start(**variant: Any) -> Any:
    chosen = VariantConfig.model_validate({"name": "fp32", **variant})
    model = ModelConfig(name="tiny", task="generation", source="/m", variants=(chosen,))
    return await replica_of(model, 0)


async def replica_of(model: ModelConfig, variant: int) -> Any:
    """A replica whose artifact nobody looks for: what it would open are the ``parts``."""
    chosen = model.variants[variant]
    artifact = ArtifactRequest(
        model=model.name,
        variant=chosen.name,
        checkpoint=Checkpoint(Path("/m")),
        task=model.task,
        recipe=chosen.recipe,
        runtime=chosen.runtime,
        options={},
        wanted_device="cpu",
        calibration=None,
        preparing_bytes=0,
    )
    replica = Replica.__new__(Replica)
    await replica.__init__(model, chosen, artifact, Path("/store"), ServerConfig())
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


async def test_an_encoder_refuses_to_generate_and_to_score(parts: Parts) -> None:
    parts.backend = FakeEncoderBackend("tiny:fp32", ())
    replica = await start()
    [error] = await streamed(replica)
    for refusal in (error, await replica.score(ScoreRequest((1,), (2,), 1))):
        assert isinstance(refusal, InvalidField)
        assert refusal.message == "model 'tiny' does not generate"


async def test_a_caller_that_goes_away_ends_the_work(parts: Parts) -> None:
    stream = (await start()).stream(REQUEST)
    await anext(stream)
    assert parts.backend.streams == 1
    await stream.aclose()
    assert parts.backend.streams == 0


async def test_a_generator_refuses_rows(parts: Parts) -> None:
    answer = await (await start()).infer(InferenceRequest(("a",), False, NO_OPTIONS, 1))
    assert isinstance(answer, InvalidField)
    assert "'tiny' generates; use /v1/completions" in answer.message


async def test_a_variant_that_cannot_be_loaded_says_why_on_every_call(parts: Parts) -> None:
    parts.backend = ConfigError("no such kernel")
    replica = await start()
    reason = "tiny:fp32 failed to load: ConfigError: no such kernel"
    for answer in (
        *(await streamed(replica)),
        await replica.infer(InferenceRequest(("a",), False, NO_OPTIONS, 1)),
        await replica.score(ScoreRequest((1,), (2,), 1)),
        await replica.tokens(TokensRequest("a", (), (), 1)),
        await replica.describe(),
    ):
        assert isinstance(answer, NotReady)
        assert answer.message == reason
    replica.check_health()
    assert "quantserve_weights_bytes" not in await replica.metrics()


@pytest.mark.parametrize("failure", [MemoryError("no room"), MayPass("the disk is full")])
async def test_what_failed_for_a_reason_that_may_pass_is_replaced_to_be_tried_again(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    parts.backend = failure
    replica = await start()
    assert isinstance(await replica.describe(), NotReady)
    replica.check_health()
    monkeypatch.setattr(deployment, "LOAD_AGAIN_S", -1.0)
    replica = await start()
    with pytest.raises(RuntimeError, match="try again"):
        replica.check_health()
    parts.backend = ConfigError("no such kernel")
    (await start()).check_health()


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


async def test_counts_look_nothing_up_that_metrics_looks_up(parts: Parts, monkeypatch) -> None:
    replica = await start()
    line = "quantserve_resident_bytes"
    assert f"{line}{{" in await replica.metrics()
    looked_up = []
    monkeypatch.setattr(replica._backends, "describe", lambda: looked_up.append(1))
    page = await replica.counts()
    assert f"{line}{{" in page
    assert "quantserve_queue_limit_requests{" in page
    assert not looked_up


async def test_sizes_are_on_the_page_as_soon_as_there_are_any(parts: Parts) -> None:
    page = await (await start()).metrics()
    assert 'quantserve_weights_bytes{model="tiny",replica="r1",variant="fp32"} 100.0' in page


async def test_a_score_is_a_value_and_so_is_what_went_wrong(parts: Parts) -> None:
    replica = await start()
    asked = ScoreRequest((1,), (2, 3), 5)
    assert await replica.score(asked) == await parts.backend.score(asked)
    parts.backend.failure = QueueFull("other work")
    assert await replica.score(asked) is parts.backend.failure
    parts.backend.failure = ZeroDivisionError("secret")
    error = await replica.score(asked)
    assert isinstance(error, InternalError)
    assert "secret" not in error.message


async def test_tokens_are_a_value_and_so_is_what_went_wrong(parts: Parts) -> None:
    replica = await start()
    asked = TokensRequest("ab", (), (), 5)
    assert await replica.tokens(asked) == await parts.backend.tokens(asked)
    parts.backend.failure = InvalidField("no chat template")
    assert await replica.tokens(asked) is parts.backend.failure


class QualityProcess:
    """Takes every sample; or nobody is there."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.failure: Exception | None = None
        self.calls = 0

    async def send(self, sample: Sample) -> None:
        self.calls += 1
        if self.failure is not None:
            raise self.failure
        self.samples.append(sample)


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch) -> QualityProcess:
    quality = QualityProcess()
    monkeypatch.setattr(deployment, "QualityProcess", lambda: quality)
    return quality


async def start_shadowed(variant: int = 1, rate: float = 1) -> Any:
    """The reference is ``fp32``, the other variant ``int4``."""
    model = ModelConfig.model_validate(
        {
            "name": "tiny",
            "task": "embeddings",
            "source": "/m",
            "variants": ("fp32", "int4"),
            "quality": {"shadow": {"rate": rate, "max_per_second": 100}},
        }
    )
    return await replica_of(model, variant)


async def direct(replica: Any, text: str) -> int:
    transport = httpx.ASGITransport(app=replica.__serve_build_asgi_app__())
    async with httpx.AsyncClient(transport=transport, base_url="http://replica") as client:
        answer = await client.post("/v1/embeddings", json={"model": "tiny", "input": text})
        return answer.status_code


async def test_answers_of_both_paths_are_sampled(parts: Parts, quality: QualityProcess) -> None:
    parts.backend = FakeEncoderBackend("tiny:int4", ())
    replica = await start_shadowed()
    await replica.infer(InferenceRequest(("a",), False, NO_OPTIONS, 1))
    assert await direct(replica, "b") == 200
    await let_others_act()
    samples = [sample for sample in quality.samples if isinstance(sample, EncodedSample)]
    assert len(samples) == len(quality.samples)
    assert [(s.input, s.model, s.variant) for s in samples] == [
        ("a", "tiny", "int4"),
        ("b", "tiny", "int4"),
    ]


async def test_without_a_quality_process_only_a_counter_shows_it(
    parts: Parts, quality: QualityProcess
) -> None:
    parts.backend = FakeEncoderBackend("tiny:int4", ())
    quality.failure = RuntimeError("dead")
    replica = await start_shadowed()
    line = 'quality_dropped_total{model="tiny",reason="unreachable",replica="r1"}'
    assert f"{line} 0.0" in await replica.metrics()
    outcome = await replica.infer(InferenceRequest(("a",), False, NO_OPTIONS, 1))
    assert outcome.tokens == 3
    await let_others_act()
    assert f"{line} 1.0" in await replica.metrics()


@pytest.mark.parametrize(("variant", "rate"), [(0, 1), (1, 0)])
async def test_neither_the_reference_is_sampled_nor_a_share_of_nothing(
    parts: Parts, quality: QualityProcess, variant: int, rate: float
) -> None:
    parts.backend = FakeEncoderBackend("tiny", ())
    replica = await start_shadowed(variant, rate)
    await replica.infer(InferenceRequest(("a",), False, NO_OPTIONS, 1))
    await let_others_act()
    assert quality.calls == 0
    assert "quality_dropped" not in await replica.metrics()
