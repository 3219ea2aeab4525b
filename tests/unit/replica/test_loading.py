"""What a replica of either kind is made of: a real artifact, and fakes for what is opened of it."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.artifacts import ArtifactRequest, ArtifactStore
from serving.config import ModelConfig, ServerConfig, VariantConfig
from serving.cores.unshared import UnsharedCores
from serving.errors import ConfigError, InvalidField
from serving.machine.device import instructions_of
from serving.recipes import RECIPES
from serving.recipes.int4 import Int4Options
from serving.replica import loading
from serving.replica.encoder.local_encoder import LocalEncoder
from serving.replica.generator.local_generator import LocalGenerator
from serving.replica.loaded_variant import STUCK_AFTER_DEADLINES, LoadedVariant
from serving.replica.loading import load_variant
from serving.seams import (
    NO_OPTIONS,
    Checkpoint,
    Description,
    GenerationRequest,
    InferenceRequest,
    NoOptions,
    OpenGeneratorRequest,
    OpenRequest,
    Sampling,
)
from tests.unit.fakes.encoder import row_of
from tests.unit.replica.staged_package import (
    ENCODER_TASK,
    GENERATOR_TASK,
    PROBES,
    RUNTIME_NAME,
    TASK_FILE,
    WEIGHTS_FILE,
    Stage,
    installed,
)

SERVER = ServerConfig(request_timeout_s=7)
LABELS = {"model": "tiny", "variant": "fp32", "replica": "r1"}

Load = Callable[..., Awaitable[LoadedVariant]]

each_task = pytest.mark.parametrize("task", [ENCODER_TASK, GENERATOR_TASK])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    """Of all tests, so that each artifact is made once."""
    return ArtifactStore(tmp_path_factory.mktemp("store"))


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with installed(tmp_path, monkeypatch) as stage:
        yield stage


@pytest.fixture
def load(stage: Stage, store: ArtifactStore, checkpoint_folder: Path) -> Load:
    """Loads a model's one variant."""

    async def load(task: str, limit: int | None = None, **variant: Any) -> LoadedVariant:
        asked = VariantConfig.model_validate(
            {"name": "fp32", "runtime": RUNTIME_NAME, "device": "cpu", **variant}
        )
        model = ModelConfig(
            name="tiny",
            task=task,
            source=str(checkpoint_folder),
            max_tokens=limit,
            variants=(asked,),
        )
        request = ArtifactRequest(
            model=model.name,
            variant=asked.name,
            checkpoint=Checkpoint(checkpoint_folder),
            task=task,
            recipe=asked.recipe,
            runtime=asked.runtime,
            options=RECIPES[asked.recipe].options(**asked.options).model_dump(),
            wanted_device=asked.device,
            calibration=None,
            preparing_bytes=1,
        )
        return await load_variant(model, asked, request, store.folder, SERVER, "r1")

    return load


def value(loaded: LoadedVariant, name: str) -> float | None:
    return loaded.metrics.registry.get_sample_value(f"quantserve_{name}", LABELS)


@each_task
async def test_the_artifact_is_made_first_and_then_found(
    load: Load, stage: Stage, store: ArtifactStore, task: str
) -> None:
    for _ in range(2):
        loaded = await load(task, recipe="int4", options={"group_size": 128})
        loaded.close()
    described = await loaded.backend.describe()
    artifact = store.look_up(described.artifact)
    assert artifact is not None
    assert described.disk_bytes == artifact.size > 0
    assert artifact.manifest.made_for == "tiny:fp32"
    assert stage.tasks_from == [artifact.task_folder] * 2
    assert [request.folder for request in stage.asked] == [artifact.weights_folder] * 2
    assert (artifact.task_folder / TASK_FILE).exists()
    options = "group_size=128 method=None symmetric=None"
    assert (artifact.weights_folder / WEIGHTS_FILE).read_text() == f"int4 {options}"


async def test_an_encoder_gets_a_batcher(load: Load) -> None:
    loaded = await load(ENCODER_TASK)
    assert isinstance(loaded.backend, LocalEncoder)
    outcome = await loaded.backend.infer(InferenceRequest(("cat",), False, NO_OPTIONS, 7))
    assert outcome.rows.tolist() == [row_of([1, *b"cat", 2], "fp32").tolist()]
    loaded.check_health()
    loaded.close()


async def test_an_encoder_is_opened_and_warmed_in_the_thread_of_its_passes(
    load: Load, stage: Stage
) -> None:
    loaded = await load(ENCODER_TASK)
    assert stage.threads[0].name.startswith("forward")
    assert stage.engine.batches == [[[1, *PROBES[0].encode(), 2]]]
    assert stage.task.prepared_in == stage.threads
    loaded.close()


async def test_an_encoder_that_gives_no_numbers_is_not_served(
    load: Load, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.full((1, 8), np.nan, np.float32)
    monkeypatch.setattr(stage.engine, "forward", lambda inputs: rows)
    with pytest.raises(ConfigError, match="tiny:fp32 answers its first probe with numbers that"):
        await load(ENCODER_TASK)


async def test_an_encoder_is_told_what_to_open(load: Load, stage: Stage) -> None:
    loaded = await load(
        ENCODER_TASK, limit=24, recipe="int4", options={"group_size": 32}, threads=3
    )
    assert stage.asked == [
        OpenRequest(
            folder=stage.asked[0].folder,
            recipe="int4",
            options=Int4Options(group_size=32),
            head=stage.task.head,
            device="cpu",
            threads=3,
        )
    ]
    assert stage.task.max_tokens == 24
    loaded.close()


async def test_an_encoder_says_what_it_is(load: Load, stage: Stage, store: ArtifactStore) -> None:
    loaded = await load(ENCODER_TASK)
    described = await loaded.backend.describe()
    (artifact_folder,) = stage.tasks_from
    assert described == Description(
        artifact=artifact_folder.parent.name,
        device="cpu",
        isa=instructions_of("cpu"),
        weights_bytes=100,
        disk_bytes=described.disk_bytes,
        resident_bytes=200,
        private_bytes=150,
        peak_bytes=300,
        load_seconds=described.load_seconds,
        max_tokens=40,
        width=8,
        labels=(),
    )
    assert described.load_seconds > 0
    loaded.close()


async def test_a_generator_gets_a_backend_of_its_own(load: Load, stage: Stage) -> None:
    loaded = await load(GENERATOR_TASK)
    assert isinstance(loaded.backend, LocalGenerator)
    described = await loaded.backend.describe()
    (artifact_folder,) = stage.tasks_from
    assert described == Description(
        artifact=artifact_folder.parent.name,
        device="cpu",
        isa=instructions_of("cpu"),
        weights_bytes=100,
        disk_bytes=described.disk_bytes,
        resident_bytes=200,
        private_bytes=150,
        peak_bytes=300,
        load_seconds=described.load_seconds,
        max_tokens=1_000,
        width=0,
        labels=(),
        kv_cache_bytes=4_000,
    )
    assert described.load_seconds > 0


async def test_a_generator_is_told_its_limits(load: Load, stage: Stage) -> None:
    await load(GENERATOR_TASK, limit=64, threads=3, max_running_requests=5, max_queued_requests=6)
    [asked] = stage.asked
    assert isinstance(asked, OpenGeneratorRequest)
    assert stage.asked == [
        OpenGeneratorRequest(
            folder=asked.folder,
            recipe="fp32",
            options=NoOptions(),
            device="cpu",
            threads=3,
            cores=asked.cores,
            max_running=5,
            max_waiting=6,
            max_tokens=64,
            stuck_after_s=STUCK_AFTER_DEADLINES * 7,
        )
    ]
    assert stage.threads[0] is not threading.current_thread()


async def test_a_generator_takes_as_many_sequences_as_may_run_and_wait(load: Load) -> None:
    loaded = await load(GENERATOR_TASK, max_running_requests=2, max_queued_requests=3)
    assert isinstance(loaded.backend, LocalGenerator)
    greedy = Sampling(0, 1, 0, 0, 0, 0, None)

    def asked(n: int) -> GenerationRequest:
        return GenerationRequest(("a",), (), n, 1, greedy, (), False, False, 7, 7)

    sent = [item async for item in loaded.backend.stream(asked(5))]
    assert len(sent) == 5 + 1
    with pytest.raises(InvalidField, match="at most 5 at once"):
        await anext(loaded.backend.stream(asked(6)))


@pytest.mark.parametrize("limit", [8, None])
async def test_a_generator_takes_its_first_steps_before_the_first_request(
    load: Load, stage: Stage, limit: int | None
) -> None:
    loaded = await load(GENERATOR_TASK, limit=limit)
    [request] = stage.generator.requests
    assert len(request.prompt) + request.max_new_tokens <= stage.generator.max_tokens
    assert stage.generator.steps == request.max_new_tokens
    assert stage.generator.open == []
    for name in ("output_tokens_total", "input_tokens_total", "prefill_duration_seconds_count"):
        assert value(loaded, name) == 0


async def test_the_steps_of_a_generator_are_measured(load: Load, stage: Stage) -> None:
    loaded = await load(GENERATOR_TASK)
    stage.generator.on_step(3)
    assert value(loaded, "batch_size_sum") == 3


async def test_health_and_end_of_a_generator_are_its_engine_s(load: Load, stage: Stage) -> None:
    loaded = await load(GENERATOR_TASK)
    loaded.check_health()
    stage.generator.health = RuntimeError("stuck")
    with pytest.raises(RuntimeError, match="stuck"):
        loaded.check_health()
    loaded.close()
    assert stage.generator.is_closed


@each_task
async def test_what_a_variant_is_is_exported(load: Load, task: str) -> None:
    loaded = await load(task, recipe="int4")
    [sample] = [
        sample
        for family in loaded.metrics.registry.collect()
        if family.name == "quantserve_variant_info"
        for sample in family.samples
    ]
    assert sample.labels == {
        **LABELS,
        "task": task,
        "role": "reference",
        "device": "cpu",
        "runtime": RUNTIME_NAME,
        "recipe": "int4",
        "isa": instructions_of("cpu"),
        "artifact": (await loaded.backend.describe()).artifact,
    }
    loaded.close()


@each_task
async def test_what_the_machine_cannot_run_is_raised(load: Load, stage: Stage, task: str) -> None:
    stage.refusal = ConfigError("no such kernel")
    with pytest.raises(ConfigError, match="no such kernel"):
        await load(task)


@each_task
async def test_who_cannot_load_leaves_its_cores_to_others(
    load: Load, stage: Stage, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    closed: list[bool] = []

    class NotedCores(UnsharedCores):
        def close(self) -> None:
            closed.append(True)

    monkeypatch.setattr(loading, "join", lambda device, most, exclusive: NotedCores(most))
    stage.refusal = ConfigError("no such kernel")
    with pytest.raises(ConfigError, match="no such kernel"):
        await load(task)
    assert closed == [True]


@each_task
async def test_the_limit_of_the_queue_is_exported(load: Load, task: str) -> None:
    loaded = await load(task, max_queued_requests=6)
    assert value(loaded, "queue_limit_requests") == 6
    loaded.close()
