"""Texts become items within a limit, and items become the arrays of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tokenizers import Tokenizer

from serving.errors import InvalidField, TooManyTokens
from serving.seams import Item
from serving.tasks.text_items import TextItem, TextItems, TextSettings, only_texts
from tests.unit.tasks.conftest import CLS, SEP

A, B, C, D = 4, 5, 6, 7
PAD, PAD_TYPE = 3, 2


def settings(**changes: Any) -> TextSettings:
    plain = {
        "max_tokens": None,
        "pad_id": PAD,
        "pad_type_id": PAD_TYPE,
        "takes_type_ids": False,
        "truncation_side": "right",
        "splits_special_tokens": False,
    }
    return TextSettings.model_validate({**plain, **changes})


def of_text(item: Item) -> TextItem:
    assert isinstance(item, TextItem)
    return item


def ids(items: Sequence[Item]) -> list[list[int]]:
    return [list(of_text(item).ids) for item in items]


@pytest.fixture
def short(tokenizer: Tokenizer) -> TextItems:
    """At most four tokens: two words."""
    return TextItems(tokenizer, settings(), 4)


@pytest.mark.parametrize("truncate", [False, True])
def test_texts_within_the_limit_are_whole(short: TextItems, truncate: bool) -> None:
    items = short.encode(["a b", "d"], truncate)
    assert ids(items) == [[CLS, A, B, SEP], [CLS, D, SEP]]
    assert [item.cost for item in items] == [4, 3]


def test_a_long_text_is_refused_with_its_place_and_the_limit(short: TextItems) -> None:
    with pytest.raises(TooManyTokens, match=r"input\[1\] has 6 tokens; the limit is 4") as caught:
        short.encode(["a", "a b c d"], truncate=False)
    assert caught.value.param == "input"


def test_a_cut_text_keeps_its_closing_token(short: TextItems) -> None:
    assert ids(short.encode(["a b c d", "c"], True)) == [[CLS, A, B, SEP], [CLS, C, SEP]]


def test_token_ids_are_taken_as_they_are(short: TextItems) -> None:
    items = short.take_ids([[A], [CLS, B, SEP]], truncate=False)
    assert ids(items) == [[A], [CLS, B, SEP]]
    assert of_text(items[1]).type_ids == [0, 0, 0]
    batch, same = short.collate(items[1:]), short.collate(short.encode(["b"], False))
    assert all((batch[name] == same[name]).all() for name in same)


def test_token_ids_that_the_model_does_not_have(short: TextItems) -> None:
    with pytest.raises(InvalidField, match=r"input\[1\]: the model's tokenizer has no token 99"):
        short.take_ids([[A], [A, 99]], truncate=True)


def test_too_many_token_ids(tokenizer: Tokenizer, short: TextItems) -> None:
    long = [CLS, A, B, C, D, SEP]
    with pytest.raises(TooManyTokens, match=r"input\[0\] has 6 tokens; the limit is 4"):
        short.take_ids([long], truncate=False)
    assert ids(short.take_ids([long], truncate=True)) == [[CLS, A, B, C]]
    left = TextItems(tokenizer, settings(truncation_side="left"), 4)
    assert ids(left.take_ids([long], truncate=True)) == [[B, C, D, SEP]]


def test_a_text_can_be_cut_on_the_left(tokenizer: Tokenizer) -> None:
    items = TextItems(tokenizer, settings(truncation_side="left"), 4)
    assert ids(items.encode(["a b c d"], True)) == [[CLS, C, D, SEP]]


def test_of_a_pair_the_longer_text_is_cut(tokenizer: Tokenizer) -> None:
    items = TextItems(tokenizer, settings(), 6)
    [first, second] = items.encode([("a", "b c d a b"), ("a b c d", "c")], True)
    assert ids([first, second]) == [[CLS, A, SEP, B, C, SEP], [CLS, A, B, SEP, C, SEP]]
    assert of_text(first).type_ids == [0, 0, 0, 1, 1, 1]


def test_a_text_without_a_token_is_refused(tokenizer: Tokenizer) -> None:
    tokenizer.post_processor = None
    with pytest.raises(InvalidField, match=r"input\[1\] has no token for this model"):
        TextItems(tokenizer, settings(), 8).encode(["a", " "], True)


@pytest.mark.parametrize("splits", [False, True])
def test_the_name_of_a_special_token_is_one_unless_the_checkpoint_says_otherwise(
    tokenizer: Tokenizer, splits: bool
) -> None:
    tokenizer.add_special_tokens(["[SEP]"])
    items = TextItems(tokenizer, settings(splits_special_tokens=splits), 16)
    for truncate in (False, True):
        [item] = items.encode(["a[SEP]"], truncate)
        assert (ids([item]) == [[CLS, A, SEP, SEP]]) is not splits


def test_what_the_tokenizer_pads_and_cuts_by_itself_is_dropped(tokenizer: Tokenizer) -> None:
    tokenizer.enable_padding(length=8)
    tokenizer.enable_truncation(3)
    items = TextItems(tokenizer, settings(), 6)
    assert ids(items.encode(["a b c", "a"], True)) == [[CLS, A, B, C, SEP], [CLS, A, SEP]]
    assert ids(items.encode(["a b c"], False)) == [[CLS, A, B, C, SEP]]


def test_threads_that_cut_and_threads_that_do_not_leave_each_other_alone(
    tokenizer: Tokenizer,
) -> None:
    items = TextItems(tokenizer, settings(), 64)
    text = "a b c d " * 16
    with ThreadPoolExecutor(4) as pool:
        cut = [pool.submit(items.encode, [text], True) for _ in range(50)]
        whole = [pool.submit(items.encode, [text], False) for _ in range(50)]
    assert {future.result()[0].cost for future in cut} == {64}
    assert {type(future.exception()) for future in whole} == {TooManyTokens}


def test_a_batch_is_padded_on_the_right_with_the_model_s_own_token(tokenizer: Tokenizer) -> None:
    items = TextItems(tokenizer, settings(), 32)
    arrays = items.collate(items.encode(["a b c", "d"], False))
    assert {name: array.dtype.name for name, array in arrays.items()} == {
        "input_ids": "int64",
        "attention_mask": "int64",
    }
    assert arrays["input_ids"].tolist() == [
        [CLS, A, B, C, SEP, *[PAD] * 3],
        [CLS, D, SEP, *[PAD] * 5],
    ]
    assert arrays["attention_mask"].tolist() == [[1] * 5 + [0] * 3, [1] * 3 + [0] * 5]


def test_token_types_are_there_for_models_that_take_them(tokenizer: Tokenizer) -> None:
    items = TextItems(tokenizer, settings(takes_type_ids=True), 32)
    arrays = items.collate(items.encode([("a", "b c")], False))
    assert arrays["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1, PAD_TYPE, PAD_TYPE]]


@pytest.mark.parametrize(
    ("words", "limit", "width"), [(1, 32, 8), (6, 32, 8), (7, 32, 16), (7, 13, 13), (30, 32, 32)]
)
def test_widths_are_multiples_of_eight_up_to_the_limit(
    tokenizer: Tokenizer, words: int, limit: int, width: int
) -> None:
    items = TextItems(tokenizer, settings(), limit)
    assert items.collate(items.encode(["a " * words], False))["input_ids"].shape == (1, width)


def test_a_task_on_single_texts_refuses_pairs() -> None:
    assert only_texts(["a", "b"]) == ["a", "b"]
    with pytest.raises(InvalidField, match="takes single texts, no pairs"):
        only_texts(["a", ("b", "c")])
