"""Which answers count as a variant's own."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.chaos.answers import (
    SAME,
    Question,
    is_same,
    questions,
    read_answer,
    require_distinct,
)

FIRST = Question("minilm", "fp32", "/v1/embeddings", "a")
SECOND = Question("minilm", "int4", "/v1/embeddings", "a")
ROW = np.full(4, 0.5)


def embedding(row: list[float | None]) -> bytes:
    return json.dumps({"data": [{"embedding": row}]}).encode()


def test_a_row_is_the_same_within_the_tolerance_only() -> None:
    read = read_answer("/v1/embeddings", embedding([0.5, 0.5, 0.5, 0.5 + SAME / 2]))
    assert is_same(read, ROW)
    assert not is_same(
        read_answer("/v1/embeddings", embedding([0.5, 0.5, 0.5, 0.5 + 2 * SAME])), ROW
    )
    assert not is_same(ROW[:3], ROW)


def test_texts_have_to_be_the_same() -> None:
    content = json.dumps({"choices": [{"text": " Paris"}]}).encode()
    assert is_same(read_answer("/v1/completions", content), " Paris")
    assert not is_same(" Paris.", " Paris")
    assert not is_same(" Paris", ROW)


@pytest.mark.parametrize(
    "content",
    [embedding([None] * 4), b'{"data": [{"embedding": [NaN, 1]}]}', b"{}", b"<html>", b"[]", b""],
)
def test_numbers_that_are_none_and_other_forms_are_no_answers(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_answer("/v1/embeddings", content)


def test_variants_that_answer_the_same_are_refused() -> None:
    require_distinct({FIRST: ROW, SECOND: ROW + 2 * SAME})
    with pytest.raises(RuntimeError, match="minilm:fp32 and minilm:int4"):
        require_distinct({FIRST: ROW, SECOND: ROW})


def test_a_question_names_its_variant_in_the_body_or_leaves_it_to_the_path() -> None:
    assert json.loads(FIRST.body(names_variant=True)) == {"model": "minilm:fp32", "input": "a"}
    assert json.loads(FIRST.body(names_variant=False)) == {"input": "a"}


def test_each_variant_is_asked_in_its_task() -> None:
    asked = questions({("minilm", "fp32"): "embeddings", ("smollm2", "q4_1"): "generation"})
    assert {(one.name, one.route) for one in asked} == {
        ("minilm:fp32", "/v1/embeddings"),
        ("smollm2:q4_1", "/v1/completions"),
    }
    greedy = json.loads(
        next(one for one in asked if one.model == "smollm2").body(names_variant=True)
    )
    assert greedy["temperature"] == 0
