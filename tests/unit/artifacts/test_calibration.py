"""Inputs that recipes calibrate with, as generators get them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from serving.artifacts.calibration import (
    TEXT_TOKENS,
    calibration_texts,
    read_held_out,
    read_inputs,
)
from serving.artifacts.request import CalibrationOrigin
from serving.errors import ConfigError
from tests.unit.fakes.generator import FakeGenerationTask


def test_a_generator_gets_the_tokens_of_each_text() -> None:
    short, long = calibration_texts(FakeGenerationTask(), ["abc", "x" * (TEXT_TOKENS + 9)])
    assert set(short) == set(long) == {"input_ids"}
    assert short["input_ids"].dtype == np.int64
    np.testing.assert_array_equal(short["input_ids"], [list(b"abc")])
    assert long["input_ids"].shape == (1, TEXT_TOKENS)


def test_labelled_passages_are_texts(tmp_path: Path) -> None:
    file = tmp_path / "passages.jsonl"
    lines = [{"prompt": "one ", "completion": "two"}, {"prompt": "three ", "completion": "four"}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    origin = CalibrationOrigin(name="dataset", path=file, is_labelled=True, count=300)
    assert read_inputs("generation", origin) == ("one two", "three four")


def numbered(folder: Path, count: int, repeats: int = 1) -> CalibrationOrigin:
    """Data of ``count`` different texts, of which every fifth is held out."""
    file = folder / "texts.jsonl"
    lines = (json.dumps({"input": f"text {n}"}) + "\n" for n in range(count))
    file.write_text("".join(line * repeats for line in lines))
    return CalibrationOrigin(
        name="texts.jsonl", path=file, is_labelled=False, count=300, holds_out=True
    )


def numbers(inputs: tuple) -> list[int]:
    return [int(text.removeprefix("text ")) for text in inputs]


@pytest.mark.parametrize(("count", "held_out"), [(50, 10), (54, 10), (55, 11), (999, 199)])
def test_every_fifth_text_is_held_out(tmp_path: Path, count: int, held_out: int) -> None:
    origin = numbered(tmp_path, count)
    kept = numbers(read_held_out("embeddings", origin))
    assert kept == list(range(4, count, 5))
    assert len(kept) == held_out
    everything = origin.model_copy(update={"count": count})
    rest = [n for n in range(count) if n % 5 != 4]
    assert numbers(read_inputs("embeddings", everything)) == rest


def test_at_most_200_are_held_out_evenly(tmp_path: Path) -> None:
    file = tmp_path / "labelled.jsonl"
    lines = (json.dumps({"input": f"text {n}", "label": "a"}) + "\n" for n in range(2_000))
    file.write_text("".join(lines))
    origin = CalibrationOrigin(
        name="dataset", path=file, is_labelled=True, count=300, holds_out=True
    )
    kept = numbers(read_held_out("classification", origin))
    assert kept == list(range(4, 2_000, 10))
    inputs = numbers(read_inputs("classification", origin))
    assert len(inputs) == 300
    assert all(n % 5 != 4 for n in inputs)  # nor any that are held out and not taken
    fewer = origin.model_copy(update={"count": 7})
    assert numbers(read_held_out("classification", fewer)) == kept


def test_a_text_that_comes_again_is_on_one_side(tmp_path: Path) -> None:
    origin = numbered(tmp_path, 60, repeats=3)
    kept, inputs = read_held_out("embeddings", origin), read_inputs("embeddings", origin)
    assert len(kept) == 12
    assert len(inputs) == len(set(inputs)) == 48
    assert not set(kept) & set(inputs)


@pytest.mark.parametrize("read", [read_held_out, read_inputs])
def test_too_few_texts_to_hold_any_out_are_refused(tmp_path: Path, read) -> None:
    with pytest.raises(ConfigError, match=r"^texts\.jsonl has 49 different inputs; 50 are needed"):
        read("embeddings", numbered(tmp_path, 49))
