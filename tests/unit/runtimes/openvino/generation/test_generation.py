"""The whole generator against transformers' ``generate``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.runtimes.openvino.generation.opening import open_generator
from serving.runtimes.openvino.generation.preparing import prepare_generator
from serving.seams import Checkpoint, GeneratorEngine
from tests.unit.runtimes.generating import Arrivals, one_by_one, requests
from tests.unit.runtimes.tiny_generators import (
    MODELS,
    greedy_by_transformers,
    open_request,
    prepare_request,
    save_generator,
)


@pytest.fixture(params=["llama", "qwen2", "phi3-partial"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Checkpoint:
    return save_generator(tmp_path / "checkpoint", **MODELS[request.param])


@pytest.fixture
def engine(checkpoint: Checkpoint, tmp_path: Path) -> Iterator[GeneratorEngine]:
    (tmp_path / "artifact").mkdir()
    prepare_generator(prepare_request("fp32", checkpoint, tmp_path / "artifact"))
    engine = open_generator(open_request("fp32", tmp_path / "artifact", num_slots=3))
    yield engine
    engine.close()


async def test_fp32_greedy_is_generate_token_by_token(
    engine: GeneratorEngine, checkpoint: Checkpoint
) -> None:
    asked = requests()
    expected = greedy_by_transformers(checkpoint, asked)
    assert len({token for answer in expected for token in answer}) > 50, "a dull model"
    assert await one_by_one(engine, asked) == expected
    for seed in range(4):
        assert await Arrivals(engine, seed).run(asked) == expected
