"""A variant with a draft, opened from real artifacts as a replica does it."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.app.plan import make_plan
from serving.config import Config, ServerConfig
from serving.metrics import Labels
from serving.replica.loading import load_variant
from serving.seams import (
    GREEDY,
    Description,
    GenerationChunk,
    GenerationRequest,
    GeneratorBackend,
)
from tests.unit.app.test_source_checks import write_tokenizer
from tests.unit.metrics.pages import value
from tests.unit.runtimes.tiny_generators import VOCABULARY, save_generator

WORDS = [f"w{number}" for number in range(VOCABULARY)]
PROMPT = "w1 w2 w3"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    save_generator(folder)
    write_tokenizer(folder, *WORDS)
    return folder


async def text_of(backend: GeneratorBackend) -> str:
    asked = GenerationRequest(
        (PROMPT,), (), 1, 40, GREEDY, (), False, False, 60, 60, ignores_end=True
    )
    pieces = [item async for item in backend.stream(asked)]
    return "".join(piece.text for piece in pieces if isinstance(piece, GenerationChunk))


async def test_it_answers_as_without_and_says_what_was_accepted(
    checkpoint: Path, tmp_path: Path
) -> None:
    draft = {"variant": "small", "tokens": 3}
    one_thread = {"device": "cpu", "threads": 1, "max_running_requests": 2}
    variants = [
        {"name": "fp32", **one_thread},
        {"name": "small", "recipe": "int4", **one_thread},
        {
            "name": "fast",
            "recipe": "fp32",
            "draft": draft,
            **one_thread,
        },
    ]
    model = {"name": "tiny", "task": "generation", "source": str(checkpoint), "variants": variants}
    plan = make_plan(Config.model_validate({"models": [model]}))
    texts: dict[str, str] = {}
    said: dict[str, Description] = {}
    counted: dict[str, float | None] = {}
    for planned in plan.variants:
        loaded = await load_variant(
            planned.model,
            planned.variant,
            planned.artifact,
            tmp_path / "store",
            ServerConfig(),
            "r1",
            planned.draft,
        )
        name = planned.variant.name
        assert isinstance(loaded.backend, GeneratorBackend)
        texts[name] = await text_of(loaded.backend)
        said[name] = await loaded.backend.describe()
        counted[name] = value(
            loaded.metrics.registry,
            "drafted_tokens_total",
            Labels("tiny", name, "generation"),
            outcome="accepted",
        )
        loaded.close()
    assert texts["fast"] == texts["fp32"]
    assert texts["small"] != texts["fp32"]
    assert said["fast"].artifact == said["fp32"].artifact
    weights = said["fp32"].weights_bytes + said["small"].weights_bytes
    assert said["fast"].weights_bytes == weights
    caches = said["fp32"].kv_cache_bytes + said["small"].kv_cache_bytes
    assert said["fast"].kv_cache_bytes == caches
    found = said["fast"].draft
    assert found is not None
    assert (found.variant, found.tokens) == ("small", 3)
    assert found.accepted > 10
    assert found.acceptance == found.accepted / (found.accepted + found.rejected)
    assert said["fp32"].draft is None
    # The first steps, before anybody asks, are no request's.
    assert counted["fast"] is not None
    assert found.accepted - 3 <= counted["fast"] <= found.accepted
    assert (counted["fp32"], counted["small"]) == (None, None)
