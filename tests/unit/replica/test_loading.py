"""What a replica of either kind is made of; the parts that need torch are fakes."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from serving.config import ModelConfig, ServerConfig
from serving.errors import ConfigError, InvalidField
from serving.replica.encoder import loading as encoder_loading
from serving.replica.encoder.local_encoder import LocalBackend
from serving.replica.generator import loading as generator_loading
from serving.replica.generator.local_generator import LocalGenerator
from serving.replica.loaded_variant import STUCK_AFTER_DEADLINES, Held
from serving.replica.loading import hold
from serving.seams import (
    Checkpoint,
    Description,
    EncoderEngine,
    EncoderTask,
    GenerationRequest,
    GenerationTask,
    GeneratorEngine,
    GeneratorRequest,
    InferenceRequest,
    LoadRequest,
    NoOptions,
    Sampling,
    Variant,
)
from tests.unit.fakes import FakeEngine, FakeGenerationTask, FakeGenerator, FakeTask, row_of

SERVER = ServerConfig(request_timeout_s=7)


@dataclass
class Parts:
    """What would be loaded, and what was asked for."""

    checkpoint: Checkpoint
    task: FakeTask = field(default_factory=FakeTask)
    engine: FakeEngine = field(default_factory=FakeEngine)
    generation_task: FakeGenerationTask = field(default_factory=FakeGenerationTask)
    generator: FakeGenerator = field(default_factory=FakeGenerator)
    asked: list[LoadRequest | GeneratorRequest] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def load(self, request: LoadRequest) -> EncoderEngine:
        self.asked.append(request)
        self.threads.append(threading.current_thread())
        return self.engine

    def load_generator(self, request: GeneratorRequest) -> GeneratorEngine:
        self.asked.append(request)
        self.threads.append(threading.current_thread())
        return self.generator

    def load_task(self, name: str, checkpoint: Checkpoint, limit: int | None) -> EncoderTask:
        assert (name, checkpoint) == ("embeddings", self.checkpoint)
        return self.task

    def load_generation_task(
        self, name: str, checkpoint: Checkpoint, limit: int | None
    ) -> GenerationTask:
        assert (name, checkpoint) == ("generation", self.checkpoint)
        if limit is not None:
            self.generation_task.max_tokens = self.generator.max_tokens = limit
        return self.generation_task

    async def hold(self, task: str, limit: int | None = None, **variant: int) -> Held:
        model = ModelConfig(
            name="tiny",
            task=task,
            source="/m",
            max_tokens=limit,
            variants=({"name": "fp32", "device": "cpu", **variant},),
        )
        return await hold(model, model.variants[0], self.checkpoint, SERVER, "r1")


@pytest.fixture
def parts(tmp_path, monkeypatch) -> Parts:
    parts = Parts(Checkpoint(tmp_path))
    variant = Variant(
        "as trained", "fake", lambda *_: 0, parts.load, parts.load_generator, NoOptions
    )
    for module in (encoder_loading, generator_loading):
        monkeypatch.setattr(module, "get_variant", lambda name: variant)
    monkeypatch.setattr(encoder_loading, "load_task", parts.load_task)
    monkeypatch.setattr(generator_loading, "load_generation_task", parts.load_generation_task)
    return parts


async def test_an_encoder_gets_a_batcher(parts: Parts) -> None:
    held = await parts.hold("embeddings")
    assert isinstance(held.backend, LocalBackend)
    outcome = await held.backend.infer(InferenceRequest(("cat",), False, None, 7))
    assert outcome.rows.tolist() == [row_of([1, *b"cat", 2], "fp32").tolist()]
    held.check_health()
    held.close()


async def test_an_encoder_is_loaded_and_warmed_in_the_thread_of_its_passes(parts: Parts) -> None:
    held = await parts.hold("embeddings")
    assert parts.threads[0].name.startswith("forward")
    assert len(parts.engine.batches) == 1
    assert parts.task.encoded_in == parts.threads
    held.close()


async def test_a_generator_gets_a_backend_of_its_own(parts: Parts) -> None:
    held = await parts.hold("generation")
    assert isinstance(held.backend, LocalGenerator)
    assert await held.backend.describe() == Description(
        "cpu",
        (await held.backend.describe()).isa,
        100,
        90,
        200,
        300,
        (await held.backend.describe()).load_seconds,
        1_000,
        0,
        (),
        kv_cache_bytes=4_000,
    )


async def test_a_generator_is_told_its_limits(parts: Parts) -> None:
    await parts.hold(
        "generation", limit=64, threads=3, max_running_requests=5, max_queued_requests=6
    )
    assert parts.asked == [
        GeneratorRequest(
            checkpoint=parts.checkpoint,
            device="cpu",
            threads=3,
            options=NoOptions(),
            max_running=5,
            max_waiting=6,
            max_tokens=64,
            stuck_after_s=STUCK_AFTER_DEADLINES * 7,
        )
    ]
    assert parts.threads[0] is not threading.current_thread()


async def test_a_generator_takes_as_many_sequences_as_may_run_and_wait(parts: Parts) -> None:
    held = await parts.hold("generation", max_running_requests=2, max_queued_requests=3)
    greedy = Sampling(0, 1, 0, 0, 0, 0, None)

    def asked(n: int) -> GenerationRequest:
        return GenerationRequest(("a",), (), n, 1, greedy, (), False, False, 7, 7)

    sent = [item async for item in held.backend.stream(asked(5))]
    assert len(sent) == 5 + 1
    with pytest.raises(InvalidField, match="at most 5 at once"):
        await anext(held.backend.stream(asked(6)))


@pytest.mark.parametrize("limit", [8, None])
async def test_a_generator_takes_its_first_steps_before_the_first_request(
    parts: Parts, limit: int | None
) -> None:
    held = await parts.hold("generation", limit=limit)
    [request] = parts.generator.requests
    assert len(request.prompt) + request.max_new_tokens <= parts.generator.max_tokens
    assert parts.generator.steps == request.max_new_tokens
    assert parts.generator.open == []
    labels = {"model": "tiny", "variant": "fp32", "replica": "r1"}
    for name in ("output_tokens_total", "input_tokens_total", "prefill_duration_seconds_count"):
        assert held.metrics.registry.get_sample_value(f"quantserve_{name}", labels) == 0


async def test_the_steps_of_a_generator_are_measured(parts: Parts) -> None:
    held = await parts.hold("generation")
    parts.generator.on_step(3)
    labels = {"model": "tiny", "variant": "fp32", "replica": "r1"}
    assert held.metrics.registry.get_sample_value("quantserve_batch_size_sum", labels) == 3


async def test_health_and_end_of_a_generator_are_its_engine_s(parts: Parts) -> None:
    held = await parts.hold("generation")
    held.check_health()
    parts.generator.health = RuntimeError("stuck")
    with pytest.raises(RuntimeError, match="stuck"):
        held.check_health()
    held.close()
    assert parts.generator.is_closed


@pytest.mark.parametrize("task", ["embeddings", "generation"])
async def test_what_a_variant_is_is_exported(parts: Parts, task: str) -> None:
    held = await parts.hold(task)
    [sample] = [
        sample
        for family in held.metrics.registry.collect()
        if family.name == "quantserve_variant_info"
        for sample in family.samples
    ]
    assert {**sample.labels, "isa": "any"} == {
        "model": "tiny",
        "variant": "fp32",
        "replica": "r1",
        "task": task,
        "role": "reference",
        "device": "cpu",
        "runtime": "fake",
        "recipe": "as trained",
        "isa": "any",
    }


async def test_what_the_machine_cannot_run_is_raised(parts: Parts, monkeypatch) -> None:
    def refuse(request: GeneratorRequest) -> GeneratorEngine:
        raise ConfigError("no such kernel")

    variant = Variant("x", "fake", lambda *_: 0, parts.load, refuse, NoOptions)
    monkeypatch.setattr(generator_loading, "get_variant", lambda name: variant)
    with pytest.raises(ConfigError, match="no such kernel"):
        await parts.hold("generation")


@pytest.mark.parametrize("task", ["embeddings", "generation"])
async def test_the_limit_of_the_queue_is_exported(parts: Parts, task: str) -> None:
    held = await parts.hold(task, max_queued_requests=6)
    labels = {"model": "tiny", "variant": "fp32", "replica": "r1"}
    assert held.metrics.registry.get_sample_value("quantserve_queue_limit_requests", labels) == 6
    held.close()
