"""A base with an adapter answers as it does in PEFT, merged and beside, alone and in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from serving.recipes import RECIPES
from serving.runtimes import RUNTIMES
from serving.runtimes.torch.merging import with_merged
from serving.seams import (
    Adapter,
    AdapterPlace,
    Checkpoint,
    Decoder,
    Head,
    Logits,
    Pooled,
    PrepareRequest,
    Segment,
)
from tests.unit.adapters.tiny import ADAPTERS, BASE_OF, BASES, TOKENS
from tests.unit.runtimes.tiny_generators import open_request
from tests.unit.runtimes.tiny_models import open_prepared

Rows = NDArray[np.float32]

GENERATORS = [name for name in BASE_OF if not name.startswith("bert")]
ENCODERS: dict[str, Head] = {
    "bert-classifier": Logits(),
    "bert-body": Pooled(pooling="cls", normalize=False),
}

SUMS = 3e-5
"""Of float32 in another order: share of a row's length."""

ROUNDED = 0.03
"""Of bfloat16 inputs and factors, 8 bits of each number, and of tables in int8: share of a row's
length."""


def expected_of(kind: str) -> dict[str, torch.Tensor]:
    return load_file(ADAPTERS / kind / "expected.safetensors")


def prepare(kind: str, place: AdapterPlace, recipe: str, folder: Path, **options: Any) -> None:
    """Write an artifact's weights as the process that makes artifacts does."""
    adapter = Adapter(ADAPTERS / kind, place)
    head = ENCODERS.get(kind)
    folder.mkdir()
    with with_merged(Checkpoint(BASES / BASE_OF[kind]), adapter, folder.parent) as checkpoint:
        RUNTIMES["torch"].prepare(
            PrepareRequest(
                checkpoint=checkpoint,
                recipe=recipe,
                options=RECIPES[recipe].options(**options),
                kind="encoder" if head else "generator",
                head=head,
                device="cpu",
                threads=1,
                example=asked(TOKENS) if head else {},
                calibration=(),
                folder=folder,
                adapter=adapter.folder if place == "beside" else None,
            )
        )


def asked(tokens: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    return {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}


def decoder(recipe: str, folder: Path, **options: Any) -> Decoder:
    open_decoder = RUNTIMES["torch"].open_decoder
    assert open_decoder is not None
    return open_decoder(open_request(recipe, folder, slot_tokens=64, **options))


def all_logits(decoder: Decoder, texts: NDArray[np.int64]) -> Rows:
    """float32 (texts, tokens, vocabulary), all texts in one step."""
    segments = [Segment(n, 0, list(text), len(text)) for n, text in enumerate(texts)]
    return decoder.step(segments).reshape(*texts.shape, -1)


def distances(found: Rows, expected: Rows) -> Rows:
    """Largest difference of each row, as a share of its length."""
    return np.abs(found - expected).max(-1) / np.linalg.norm(expected, axis=-1)


@pytest.mark.parametrize("kind", BASE_OF)
def test_merged_weights_are_those_that_peft_merges(kind: str, tmp_path: Path) -> None:
    """Both add float32 products of at most eight terms; the order of these may differ."""
    base = load_file(BASES / BASE_OF[kind] / "model.safetensors")
    with with_merged(
        Checkpoint(BASES / BASE_OF[kind]), Adapter(ADAPTERS / kind, "merged"), tmp_path
    ) as checkpoint:
        merged = load_file(checkpoint.folder / "model.safetensors")
        assert (checkpoint.folder / "config.json").is_file()
    expected = expected_of(kind)
    del expected["answer"]
    prefix = "bert." if kind == "bert-body" else ""
    expected = {f"{prefix}{name}": weight for name, weight in expected.items()}
    for name, weight in expected.items():
        torch.testing.assert_close(merged[name], weight, rtol=0, atol=2e-6)
    assert {name for name in base if not torch.equal(base[name], merged[name])} == set(expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_with_a_merged_adapter_answers_as_in_peft(kind: str, tmp_path: Path) -> None:
    """In float32, whose sums come in another order."""
    prepare(kind, "merged", "fp32", tmp_path / "artifact")
    rows = open_prepared("torch", "fp32", ENCODERS[kind], tmp_path / "artifact").forward(
        asked(TOKENS)
    )
    assert distances(rows, expected_rows(kind)).max() <= SUMS


def expected_rows(kind: str) -> Rows:
    answer: Rows = expected_of(kind)["answer"].numpy()
    return answer if kind == "bert-classifier" else answer[:, 0]


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_generator_with_a_merged_adapter_answers_as_in_peft(kind: str, tmp_path: Path) -> None:
    """In float32, whose sums come in another order."""
    prepare(kind, "merged", "fp32", tmp_path / "artifact")
    found = all_logits(decoder("fp32", tmp_path / "artifact"), TOKENS)
    assert distances(found, expected_of(kind)["answer"].numpy()).max() <= SUMS


RTN: dict[str, Any] = {"method": "rtn"}
"""Finds the grids on which the bases lie."""


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_generator_in_int4_with_an_adapter_beside_answers_as_in_peft(
    kind: str, tmp_path: Path
) -> None:
    prepare(kind, "beside", "int4", tmp_path / "artifact", **RTN)
    opened = decoder("int4", tmp_path / "artifact", **RTN)
    expected: Rows = expected_of(kind)["answer"].numpy()
    found = all_logits(opened, TOKENS)
    prepare_alone(kind, tmp_path / "alone")
    alone = all_logits(decoder("int4", tmp_path / "alone", **RTN), TOKENS)
    assert_rounded_alone(distances(found, expected), distances(alone, expected))


def prepare_alone(kind: str, folder: Path) -> None:
    """The base in ``int4`` without its adapter."""
    folder.mkdir()
    head = ENCODERS.get(kind)
    RUNTIMES["torch"].prepare(
        PrepareRequest(
            checkpoint=Checkpoint(BASES / BASE_OF[kind]),
            recipe="int4",
            options=RECIPES["int4"].options(**RTN),
            kind="encoder" if head else "generator",
            head=head,
            device="cpu",
            threads=1,
            example=asked(TOKENS) if head else {},
            calibration=(),
            folder=folder,
        )
    )


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_in_int4_with_an_adapter_beside_answers_as_in_peft(
    kind: str, tmp_path: Path
) -> None:
    prepare(kind, "beside", "int4", tmp_path / "artifact", **RTN)
    opened = open_prepared("torch", "int4", ENCODERS[kind], tmp_path / "artifact", **RTN)
    expected = expected_rows(kind)
    found = distances(opened.forward(asked(TOKENS)), expected)
    prepare_alone(kind, tmp_path / "alone")
    alone = open_prepared("torch", "int4", ENCODERS[kind], tmp_path / "alone", **RTN)
    assert_rounded_alone(found, distances(alone.forward(asked(TOKENS)), expected))


def assert_rounded_alone(adapted: Rows, without: Rows) -> None:
    """What is left is rounding: little, and far less than the adapter changes."""
    assert adapted.mean() <= ROUNDED
    assert without.mean() >= 3 * adapted.mean()


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("place", ["merged", "beside"])
def test_a_batch_of_adapted_inputs_answers_as_each_alone(
    kind: str, place: AdapterPlace, tmp_path: Path
) -> None:
    prepare(kind, place, "int4", tmp_path / "artifact", **RTN)
    opened = open_prepared("torch", "int4", ENCODERS[kind], tmp_path / "artifact", **RTN)
    together = opened.forward(asked(TOKENS))
    alone = np.concatenate([opened.forward(asked(TOKENS[n : n + 1])) for n in range(len(TOKENS))])
    expectation = RECIPES["int4"].encoder
    assert expectation is not None
    assert distances(together, alone).max() <= expectation.batch_change


@pytest.mark.parametrize("place", ["merged", "beside"])
def test_adapted_texts_are_continued_in_company_as_alone(
    place: AdapterPlace, tmp_path: Path
) -> None:
    prepare("llama-every-layer", place, "int4", tmp_path / "artifact", **RTN)
    opened = decoder("int4", tmp_path / "artifact", **RTN)
    together = all_logits(opened, TOKENS)
    alone = np.concatenate([in_pieces(opened, text) for text in TOKENS])
    expectation = RECIPES["int4"].generator
    assert expectation is not None
    distance = distances(together, alone.reshape(together.shape))
    assert distance.max() <= expectation.company_change


def in_pieces(opened: Decoder, text: Sequence[int]) -> Rows:
    """Logits of a text that comes alone, its last tokens one by one."""
    at_once = len(text) - 4
    rows = [opened.step([Segment(0, 0, list(text[:at_once]), at_once)])]
    rows += [opened.step([Segment(0, n, [text[n]])]) for n in range(at_once, len(text))]
    return np.concatenate(rows)
