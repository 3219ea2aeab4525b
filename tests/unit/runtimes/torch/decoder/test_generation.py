"""What torch's generators promise beyond the contract of every runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.recipes import RECIPES
from serving.runtimes.torch.decoder.opening import open_generator
from serving.runtimes.torch.decoder.preparing import prepare_generator
from serving.seams import Checkpoint, Decoder, GeneratorEngine, Segment
from tests.matrix import pairs
from tests.unit.runtimes.generating import Arrivals, one_by_one, requests
from tests.unit.runtimes.tiny_generators import (
    MODELS,
    TORCH_RECIPES,
    VOCABULARY,
    decoder_of,
    greedy_by_transformers,
    numerics_of,
    open_request,
    prepare_request,
    random_model,
    random_tokens,
    save_generator,
)

NAMES = ("llama", "qwen3-biases")
TEXTS = [random_tokens(100, seed) for seed in range(4)]


@pytest.fixture(params=[*NAMES, "phi3-partial"])
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


Logits = NDArray[np.float32]


def alone(decoder: Decoder) -> Logits:
    """Logits after every token of each text, prefilled at once."""
    return np.concatenate([decoder.step([Segment(0, 0, text, len(text))]) for text in TEXTS])


def in_company(decoder: Decoder, seed: int) -> Logits:
    """The same, but all texts together, in pieces of any size."""
    random = np.random.default_rng(seed)
    starts, rows = [0] * len(TEXTS), [[np.empty((0, VOCABULARY), np.float32)] for _ in TEXTS]
    while any(start < len(text) for start, text in zip(starts, TEXTS, strict=True)):
        segments = []
        for slot, (start, text) in enumerate(zip(starts, TEXTS, strict=True)):
            count = 1 if random.random() < 0.6 else int(random.integers(2, 40))
            if start < len(text) and random.random() < 0.8:
                piece = text[start : start + count]
                segments.append(Segment(slot, start, piece, len(piece)))
        if not segments:
            continue
        logits = decoder.step(segments)
        for segment in segments:
            count = len(segment.token_ids)
            rows[segment.slot].append(logits[:count])
            logits = logits[count:]
            starts[segment.slot] += count
    return np.concatenate([row for of_text in rows for row in of_text])


@pytest.mark.parametrize(("recipe", "name"), pairs(TORCH_RECIPES, NAMES))
def test_pieces_of_any_size_change_little(recipe: str, name: str) -> None:
    """Within what the recipe expects of company.

    How many rows a matrix has and how long the attention's mask is change the order of float32
    sums. In fp32 it stays at that; elsewhere a last bit can tip the rounding of a later activation,
    of a key or of a value by a whole step, and all that comes after it. In int4, pieces of more
    than 64 tokens are also multiplied with expanded weights instead of by the 4-bit kernel.
    """
    decoder = decoder_of(random_model(**MODELS[name]), numerics_of(recipe))
    expectation = RECIPES[recipe].generator
    assert expectation is not None
    expected = alone(decoder)
    for seed in range(2):
        logits = in_company(decoder, seed)
        change = np.linalg.norm(logits - expected, axis=1) / np.linalg.norm(expected, axis=1)
        assert change.max() <= expectation.company_change
        same = (logits.argmax(1) == expected.argmax(1)).mean()
        assert same >= expectation.company_same_top
